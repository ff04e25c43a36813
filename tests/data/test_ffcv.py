"""The FFCV format: read by FFCV alone, written as its own writer would, and what the engine makes of faults in it."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from fastres.data import ffcv as engine
from fastres.data.engines import open_split
from fastres.data.manifest import load_manifest
from fastres.data.trust import Watched
from fastres.machine.errors import DataError
from tests.support.packing import Packer, arrays, need, spoil
from tests.support.trees import write_tree

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def library():
    need("ffcv")


# What a user of FFCV would write, with nothing of ours.
SCRIPT = """
import sys
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
loader = Loader(sys.argv[1], batch_size=7, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False,
                pipelines={"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()], "id": [IntDecoder()]})
for images, labels, ids in loader:
    for image, label, i in zip(images, labels, ids):
        print(i[0], label[0], int(image.sum()))
"""


@pytest.mark.slow
def test_a_script_of_ffcv_alone_reads_our_file(packed_for_engines):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, packed_for_engines / "val.beton"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    images, labels, _ = arrays(packed_for_engines, "val")
    expected = [f"{i} {labels[i]} {int(images[i].sum())}" for i in range(40)]
    assert done.stdout.split("\n")[:-1] == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # FFCV's writer, Python 3.12
def test_the_bytes_are_those_of_ffcvs_own_writer(packed_for_engines, tmp_path, capfd):
    """Everything FFCV's reader knows of the file, after its own DatasetWriter has written the same samples."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.reader import Reader
    from ffcv.writer import DatasetWriter

    images, labels, _ = arrays(packed_for_engines, "train")
    samples = [(np.asarray(image), int(label), i) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField(), "id": IntField()}
    writer = DatasetWriter(str(tmp_path / "theirs.beton"), fields, page_size=1 << 22, num_workers=1)
    writer.from_indexed_dataset(samples)
    theirs, ours = Reader(str(tmp_path / "theirs.beton")), Reader(str(packed_for_engines / "train.beton"))
    assert ours.field_names == theirs.field_names == ["image", "label", "id"]
    assert np.array_equal(ours.metadata, theirs.metadata) and np.array_equal(ours.alloc_table, theirs.alloc_table)
    assert (packed_for_engines / "train.beton").read_bytes() == (tmp_path / "theirs.beton").read_bytes()


@pytest.mark.fault(7)
def test_images_left_out_lower_the_count(tmp_path, capsys):
    write_tree(tmp_path / "tiny")
    spoil(tmp_path / "tiny")
    run = Packer(tmp_path, capsys)
    code, _, err = run("--source", tmp_path / "tiny", "--on-bad", "skip", "--engines", "ffcv,resident")
    assert code == 0, err
    for split, count in (("train", 22), ("val", 10), ("test", 11)):
        data = open_split("ffcv", tmp_path / "packed", load_manifest(tmp_path / "packed"), split, CPU)
        assert len(data) == count
        batch = next(data.batches(np.arange(count), count))
        assert np.array_equal(batch.images.numpy(), arrays(tmp_path / "packed", split)[0])


def test_pages_that_an_image_does_not_fill(tmp_path, monkeypatch, capsys):
    """A page of 2 MiB holds 10.67 images of 256 px: more than one page, and a rest in each."""
    from preprocess.writers import ffcv

    monkeypatch.setattr(ffcv, "PAGE", 1 << 21)
    write_tree(tmp_path / "tiny", classes=2, side=256, train=13, val=1, test=1)
    run = Packer(tmp_path, capsys)
    code, _, err = run("--source", tmp_path / "tiny", "--engines", "ffcv,resident")
    assert code == 0, err
    data = open_split("ffcv", tmp_path / "packed", load_manifest(tmp_path / "packed"), "train", CPU)
    batch = next(data.batches(np.arange(26)[::-1], 26))
    assert np.array_equal(batch.images.numpy(), arrays(tmp_path / "packed", "train")[0][::-1])


@pytest.mark.fault(28)
def test_an_error_inside_an_epoch_arrives(packed_for_engines, monkeypatch):
    """In FFCV's own thread it would leave the reader waiting for ever."""
    data = open_split("ffcv", packed_for_engines, load_manifest(packed_for_engines), "val", CPU)
    batches = data.batches(np.arange(40), 4)
    next(batches)

    def fail(*_):
        raise ZeroDivisionError("inside FFCV")

    from ffcv.loader.epoch_iterator import EpochIterator

    monkeypatch.setattr(EpochIterator, "run_pipeline", fail)
    with pytest.raises(ZeroDivisionError, match="inside FFCV"):
        list(batches)
    assert "ahead-the ffcv engine" not in {t.name for t in threading.enumerate()}


def test_a_file_of_other_labels_is_refused(packed_for_engines):
    with pytest.raises(DataError, match="labels or ids are not those of the index"):
        engine.FfcvReader(Watched(packed_for_engines, load_manifest(packed_for_engines), "val.beton"), np.zeros(40))
