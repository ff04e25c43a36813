"""Every engine delivers the same ids, labels and pixels in the order asked for, and leaves nothing behind."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
import torch

from fastres.data import ahead as ahead_module
from fastres.data import trust
from fastres.data.ahead import Ahead
from fastres.data.engines import ENGINES, open_split, packed_for
from fastres.data.manifest import load_manifest
from fastres.data.slices import slices
from fastres.machine.errors import DataError, MachineError
from fastres.train import command as train_command
from preprocess import pack
from preprocess.options import completed, parser
from tests.conftest import TINY_FILE
from tests.support.packing import arrays, need, wait_for

CPU = torch.device("cpu")


@pytest.fixture(params=ENGINES)
def engine(request):
    need(request.param)
    return request.param


@pytest.fixture
def opened(engine, packed_for_engines):
    """opened(split) through this engine."""
    return lambda split: open_split(engine, packed_for_engines, load_manifest(packed_for_engines), split, CPU)


def epoch(data, ids, batch_size):
    """(pixels, labels, ids) of one pass, and the sizes of its batches. Batches are kept, then read."""
    batches = list(data.batches(ids, batch_size))
    pixels = torch.cat([b.images[b.rows] for b in batches]).numpy()
    together = [torch.cat([getattr(b, name) for b in batches]).numpy() for name in ("labels", "ids")]
    return pixels, *together, [len(b.ids) for b in batches]


@pytest.mark.fault(15)
@pytest.mark.parametrize("batch_size", [1, 7, 512, 20_000])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_same_pixels_labels_and_ids_in_the_order_asked_for(opened, packed_for_engines, split, batch_size):
    """Fault 15, against the resident file and the index."""
    images, labels, files = arrays(packed_for_engines, split)
    labels = np.full(len(files), -1) if labels is None else labels
    data = opened(split)
    order = np.random.default_rng(batch_size).permutation(len(files))
    pixels, found, ids, sizes = epoch(data, order, batch_size)
    assert len(data) == len(files) and data.labels.tolist() == labels.tolist()
    assert np.array_equal(ids, order) and np.array_equal(found, labels[order])
    assert np.array_equal(pixels, images[order])
    assert all(size == batch_size for size in sizes[:-1]) and sum(sizes) == len(files)


@pytest.mark.fault(15)
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_processes_share_is_delivered_once_and_unpadded(opened, processes):
    data, seen = opened("train"), []
    for rank in range(processes):
        seen += [i for batch in slices(data, np.arange(len(data)), 7, rank, processes) for i in batch.ids.tolist()]
    assert sorted(seen) == list(range(len(data)))


def test_repeated_ids_and_none(opened, packed_for_engines):
    data = opened("val")
    pixels, _, ids, _ = epoch(data, np.array([3, 3, 0]), 2)
    assert ids.tolist() == [3, 3, 0] and np.array_equal(pixels[0], pixels[1])
    assert list(data.batches(np.array([], np.int64), 4)) == []
    picked = data.pixels(torch.tensor([5, 1]))
    assert np.array_equal(picked.numpy(), arrays(packed_for_engines, "val")[0][[5, 1]])


@pytest.mark.parametrize("engine", ["ffcv", "dali"], indirect=True)
def test_ids_that_are_not_there(opened):
    with pytest.raises(IndexError, match="ids 0 to 40, expected 0 to 39"):
        next(opened("val").batches(np.arange(41), 8))


def threads():
    return {t.name for t in threading.enumerate()}, len(os.listdir("/proc/self/task"))


def test_an_early_stop_leaves_no_thread_and_the_next_epoch_is_whole(opened):
    data, order = opened("train"), np.arange(160)[::-1]
    epoch(data, order, 16)  # libraries start their pools, torch its threads
    before = threads()
    for stop_after in (1, 2, 5):
        for _, _batch in zip(range(stop_after), data.batches(order, 4)):
            pass
        batches = data.batches(order, 4)
        next(batches)
        batches.close()
    assert wait_for(lambda: threads()[0] == before[0] and threads()[1] <= before[1], 10), (before, threads())
    assert epoch(data, order, 16)[2].tolist() == order.tolist()


def test_torch_keeps_its_threads(opened):
    torch.set_num_threads(2)
    try:
        epoch(opened("val"), np.arange(40), 8)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.fault(14)
@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing", "foreign"])
def test_damage_is_refused_before_the_library_sees_it(engine, packed_for_engines, tmp_path, damage):
    """Fault 14, in files that were verified before. Within seconds, since a library that hangs would hang here."""
    folder = shutil.copytree(packed_for_engines, tmp_path / "packed")
    manifest = load_manifest(folder)
    open_split(engine, folder, manifest, "train", CPU)
    name = {"resident": "train.images.npy", "ffcv": "train.beton", "dali": "train.tar"}[engine]
    content = bytearray((folder / name).read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 4
    elif damage == "truncated":
        del content[-100:]
    elif damage == "empty":
        content.clear()
    elif damage == "foreign":
        content = bytearray((folder / name.replace("train", "val")).read_bytes())
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*pack.py"):
        open_split(engine, folder, manifest, "train", CPU)


@pytest.mark.fault(14)
def test_files_are_hashed_once_and_again_when_they_were_touched(packed_for_engines, tmp_path, monkeypatch):
    folder = shutil.copytree(packed_for_engines, tmp_path / "packed")
    manifest, name, hashed = load_manifest(folder), "train.files.txt", []
    real = trust.verify_file
    monkeypatch.setattr(trust, "verify_file", lambda *a: (hashed.append(a[2]), real(*a)))
    for _ in range(3):
        trust.verify_once(folder, manifest, name)
    assert hashed == [name]  # the copy is another inode
    os.utime(folder / name, ns=(1, 1))
    trust.verify_once(folder, manifest, name)
    trust.verify_once(folder, manifest, name)
    assert hashed == [name] * 2
    (folder / trust.FILE_NAME).write_text("{")
    trust.verify_once(folder, manifest, name)
    assert hashed == [name] * 3


def test_what_was_just_packed_is_trusted(packed_for_engines, monkeypatch):
    monkeypatch.setattr(trust, "verify_file", lambda *_: pytest.fail("hashed again"))
    manifest = load_manifest(packed_for_engines)
    for name in manifest.files:
        trust.verify_once(packed_for_engines, manifest, name)


def test_a_folder_packed_for_another_engine(packed, tmp_path):
    manifest = load_manifest(packed)
    assert packed_for(manifest, "train") == ["resident"]
    need("ffcv")
    with pytest.raises(DataError, match="packed for resident, not for ffcv.*--engines ffcv"):
        open_split("ffcv", packed, manifest, "train", CPU)


@pytest.mark.fault(18)
@pytest.mark.parametrize("missing", ["ffcv", "dali"])
def test_a_missing_library_is_said_with_its_remedy(packed, tmp_path, monkeypatch, missing):
    monkeypatch.setattr("fastres.machine.extras.find_spec", lambda _: None)
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--run-dir", str(tmp_path / "run")]
    with pytest.raises(MachineError, match=rf"--engine {missing}: .*pip install .*{missing}"):
        train_command.main([*arguments, "--engine", missing])
    assert not (tmp_path / "run").exists()


def test_the_packer_takes_what_is_installed_and_says_what_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("fastres.machine.extras.find_spec", lambda _: None)
    assert completed(parser().parse_args([])).engines == ["resident"]
    with pytest.raises(MachineError, match=r"--engine dali: nvidia.dali is not installed; pip install"):
        pack.main(["--source", str(tmp_path), "--engines", "resident,dali", "--out", str(tmp_path / "packed")])
    assert not (tmp_path / "packed").exists()


# ---- the thread that works ahead


def consume(produce, **settings):
    with Ahead(produce, name="test", **settings) as items:
        return list(items)


@pytest.mark.fault(28, by_hand=True)
def test_an_exception_in_the_thread_arrives():
    def produce():
        yield 1
        raise ZeroDivisionError("inside")

    with pytest.raises(ZeroDivisionError, match="inside"):
        consume(produce)


@pytest.mark.fault(28, by_hand=True)
def test_a_thread_that_dies_without_a_word_is_an_error_at_once(monkeypatch):
    monkeypatch.setattr(Ahead, "_work", lambda self, produce: None)
    start = time.monotonic()
    with pytest.raises(MachineError, match="died without a word"):
        consume(lambda: iter([1]))
    assert time.monotonic() - start < 5


@pytest.mark.fault(28, by_hand=True)
def test_a_thread_that_is_stuck_is_an_error_within_its_patience():
    assert Ahead(lambda: iter(()), name="x").patience + 1 < 30  # what is promised
    stuck = threading.Event()

    def produce():
        yield 1
        stuck.wait(60)

    start = time.monotonic()
    with pytest.raises(MachineError, match="nothing came for 1 s"):
        consume(produce, patience=1)
    assert time.monotonic() - start < 10
    stuck.set()


def test_it_works_ahead_and_no_further():
    made = []

    def produce():
        for i in range(20):
            made.append(i)
            yield i

    with Ahead(produce, name="test", depth=2) as items:
        reader = iter(items)
        assert next(reader) == 0
        assert wait_for(lambda: len(made) == 4, 5)  # one taken, two waiting, one in hand
        time.sleep(3 * ahead_module.LOOK_EVERY / 5)
        assert len(made) == 4
    assert wait_for(lambda: "ahead-test" not in threads()[0], 5) and len(made) < 6
