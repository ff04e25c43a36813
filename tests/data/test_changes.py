"""Packed files that change under a run: noticed by every engine, never trained on, never the end of the process."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres.data.engines import ENGINES, PIXEL_FILES, open_split
from fastres.data.manifest import load_manifest
from fastres.data.trust import Watched
from fastres.evaluate import __main__ as evaluate
from fastres.machine.command import run_command
from fastres.machine.errors import DataError
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.stage.step import EagerStep
from tests.support.packing import need
from tests.support.tiny_runs import train_tiny

CPU = torch.device("cpu")
CHANGES = ("cut", "emptied", "overwritten", "removed", "replaced")
STREAMS = [engine for engine in ENGINES if engine != "resident"]


@pytest.fixture
def own(packed_for_engines, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(packed_for_engines, tmp_path / "packed")


def change(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "removed":
        path.unlink()
    elif how in ("cut", "emptied"):
        os.truncate(path, len(content) // 2 if how == "cut" else 0)
    elif how == "overwritten":  # as many bytes, in place
        with open(path, "r+b") as file:
            file.seek(len(content) // 3)
            file.write(bytes(len(content) // 3))
    else:
        path.with_name("other").write_bytes(content[::-1])
        os.replace(path.with_name("other"), path)


def pixels_of(packed: Path, engine: str, split: str = "train") -> Path:
    return packed / f"{split}.{PIXEL_FILES[engine]}"


@pytest.mark.fault(40)
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("engine", ENGINES)
def test_between_two_epochs(own, engine, how):
    need(engine)
    data = open_split(engine, own, load_manifest(own), "train", CPU)
    assert sum(len(batch.ids) for batch in data.batches(np.arange(160), 64)) == 160
    change(pixels_of(own, engine), how)
    with pytest.raises(DataError, match=rf"train.{PIXEL_FILES[engine]}: .*expected.*pack.py"):
        next(data.batches(np.arange(160), 64))


@pytest.mark.fault(40)
@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("engine", STREAMS)
def test_inside_an_epoch_no_batch_of_a_changed_file_is_delivered(own, engine, how):
    """A file that was mapped and is cut would end this process here."""
    need(engine)
    data = open_split(engine, own, load_manifest(own), "train", CPU)
    good = dict(enumerate(data.pixels(torch.arange(160))))
    batches, seen = data.batches(np.arange(160)[::-1], 2), 0
    next(batches)
    change(pixels_of(own, engine), how)
    with pytest.raises(DataError, match=rf"train.{PIXEL_FILES[engine]}: .*pack.py"):
        for batch in batches:
            assert all(torch.equal(image, good[i]) for i, image in zip(batch.ids.tolist(), batch.images))
            seen += 1
    assert seen <= 6  # what was read ahead


@pytest.mark.fault(40)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_was_only_touched_serves_on(own, engine):
    need(engine)
    data, path = open_split(engine, own, load_manifest(own), "train", CPU), pixels_of(own, engine)
    os.utime(path, ns=(1, 1))
    assert sum(len(batch.ids) for batch in data.batches(np.arange(160), 64)) == 160
    shutil.copy(path, own / "copy")
    os.replace(own / "copy", path)
    assert sum(len(batch.ids) for batch in data.batches(np.arange(160), 64)) == 160


@pytest.mark.fault(40)
@pytest.mark.parametrize("engine", ENGINES)
def test_no_packed_file_is_mapped(own, engine):
    need(engine)
    data = open_split(engine, own, load_manifest(own), "train", CPU)
    batches = data.batches(np.arange(160), 16)
    next(batches)
    assert str(own) not in Path("/proc/self/maps").read_text()
    batches.close()


@pytest.mark.fault(40)
@pytest.mark.slow
@pytest.mark.parametrize(
    "engine,how",
    [
        ("resident", "overwritten"),
        ("resident", "removed"),
        ("ffcv", "cut"),
        ("ffcv", "replaced"),
        ("dali", "cut"),
        ("dali", "overwritten"),
    ],
)
def test_a_run_ends_with_3_and_its_summary_says_so(own, engine, how, tmp_path, monkeypatch, capsys):
    need(engine)
    original, name = EagerStep.__call__, f"{('train', 'val')[how == 'cut']}.{PIXEL_FILES[engine]}"

    def changing(self, *arguments, **named):
        original(self, *arguments, **named)
        if (own / "manifest.json").exists():  # once, after the first step
            (own / "manifest.json").rename(own / "gone.json")
            change(own / name, how)

    monkeypatch.setattr(EagerStep, "__call__", changing)
    summary = train_tiny(own, tmp_path / "run", "--engine", engine, "--device", "cpu", code=3)
    assert (summary["status"], summary["exit_code"]) == ("failed", 3) and name in summary["error"]
    said = capsys.readouterr().err
    assert name in said and "Traceback" not in said


@pytest.mark.fault(40)
@pytest.mark.parametrize("engine,how", [("ffcv", "cut"), ("dali", "removed")])
def test_evaluation_ends_with_3(own, engine, how, tmp_path, monkeypatch, capsys):
    need(engine)
    weights = tmp_path / "net.safetensors"
    facts = {"upscale": 1, "class_digest": load_manifest(own).class_digest}
    weights.write_bytes(save_weights(build(Architecture("resnet18", 8, load_manifest(own).num_classes)), facts))

    def opened(*arguments):
        split = open_split(*arguments)
        change(pixels_of(own, engine, "val"), how)
        return split

    monkeypatch.setattr(evaluate, "open_split", opened)
    arguments = [str(weights), "--data", str(own), "--engine", engine, "--device", "cpu", "--precision", "fp32"]
    assert run_command(lambda: evaluate.main(arguments)) == 3
    assert f"val.{PIXEL_FILES[engine]}" in capsys.readouterr().err


@pytest.mark.fault(40)
def test_what_dali_says_becomes_our_sentence(own):
    """A tar whose index leads beside the images."""
    need("dali")
    data = open_split("dali", own, load_manifest(own), "val", CPU)
    data.reader.offsets += 5
    with pytest.raises(DataError, match=r"val.tar: dali cannot read it \(.+\), expected what was packed; .*--engine"):
        list(data.batches(np.arange(40), 8))


@pytest.mark.fault(40)
@pytest.mark.parametrize("engine", STREAMS)
def test_a_read_that_comes_short_is_noticed_by_itself(own, engine, monkeypatch):
    """On a file system that shows no change."""
    need(engine)
    data = open_split(engine, own, load_manifest(own), "val", CPU)
    monkeypatch.setattr(Watched, "check", lambda self: None)
    monkeypatch.setattr(Watched, "unchanged", lambda self: None)
    os.truncate(pixels_of(own, engine, "val"), 1024)
    with pytest.raises(DataError, match=r"val\.(beton|tar): .*(could not|cannot) (be )?read"):
        list(data.batches(np.arange(40), 8))


@pytest.mark.fault(40)
def test_a_note_of_another_program_is_no_trust(own):
    """What stands in .verified.json is compared, not believed for the rest of the run."""
    need("ffcv")
    data = open_split("ffcv", own, load_manifest(own), "val", CPU)
    change(own / "val.beton", "overwritten")
    noted = json.loads((own / ".verified.json").read_text())
    assert noted["val.beton"][2] != (own / "val.beton").stat().st_mtime_ns
    with pytest.raises(DataError, match="val.beton: found sha256"):
        list(data.batches(np.arange(40), 8))


@pytest.mark.fault(40)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [-1, 160, 1 << 40])
def test_ids_out_of_range_are_refused(packed_for_engines, engine, bad):
    """Also by what picks a few images; -1 is not the last one."""
    need(engine)
    data = open_split(engine, packed_for_engines, load_manifest(packed_for_engines), "train", CPU)
    for ask in (lambda: next(data.batches(np.array([0, bad]), 2)), lambda: data.pixels(torch.tensor([bad]))):
        with pytest.raises(IndexError, match="expected 0 to 159"):
            ask()
