"""Pipes, sockets and devices where a file is named: refused before they are opened, without a wait."""

import os
import socket
import stat
import zipfile
from pathlib import Path

import pytest
import torch

from fastres.data.labels import verified_array
from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate
from fastres.machine.command import run_command
from fastres.machine.errors import FastresError
from fastres.machine.files import read_regular
from fastres.model.conditions import read_classes
from fastres.model.target import read_model
from fastres.predict import __main__ as predict
from fastres.predict.answering import open_model
from fastres.schedules.loading import load_schedule
from fastres.train.checkpoint import load_checkpoint
from tests.support.trees import picture, wnid, write_image

pytestmark = pytest.mark.timeout(60)
KINDS = ("pipe", "socket", "device", "link to a pipe")


def special(kind, path):
    path = Path(path)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's name may not be long
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(path.with_name("the pipe"))
        path.symlink_to("the pipe")
    return path


@pytest.mark.fault(42)
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_not_opened(kind, tmp_path, monkeypatch):
    path = special(kind, tmp_path / "x")
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(OSError, match="no regular file"):
        read_regular(path)


@pytest.mark.fault(42)
@pytest.mark.parametrize("kind", KINDS)
def test_one_among_the_images(kind, tree, packer, tmp_path):
    path = f"train/{wnid(1)}/images/{wnid(1)}_1.JPEG"
    special(kind, tree[0] / path)
    code, _, err = packer("--source", tree[0])
    assert code == 3 and f"{path}: cannot be read (it is no regular file)" in err
    assert packer("--source", tree[0], "--on-bad", "skip")[0] == 0


@pytest.mark.fault(42)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["--source", "wnids.txt", "val/val_annotations.txt"])
def test_one_for_the_data_set_or_its_lists(kind, where, tree, packer, tmp_path):
    path = special(kind, tmp_path / "data.zip" if where == "--source" else tree[0] / where)
    code, _, err = packer("--source", path if where == "--source" else tree[0])
    assert code in (2, 3) and err.startswith("error: ") and len(err.splitlines()) == 1


@pytest.mark.fault(42)
@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFLNK])
def test_one_in_a_zip(mode, tree, packer, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted(tree[0].rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(tree[0].parent))
        entry = zipfile.ZipInfo(f"tiny/train/{wnid(1)}/images/x.JPEG")
        entry.external_attr = (mode | 0o644) << 16
        archive.writestr(entry, b"")
    code, _, err = packer("--source", tmp_path / "data.zip")
    assert code == 3 and "x.JPEG is a link or no regular file" in err


@pytest.mark.fault(42)
@pytest.mark.parametrize("kind", KINDS)
def test_one_for_any_other_file(kind, tmp_path):
    for name, read in (
        ("w.pth", read_model),
        ("w.safetensors", read_model),
        ("w.t7", read_model),
        ("s.py", lambda path: load_schedule(str(path))),
        ("classes.txt", read_classes),
        ("n.onnx", lambda path: open_model(path, "auto", torch.device("cpu"))),
        ("manifest.json", lambda path: load_manifest(path.parent)),
    ):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        with pytest.raises(FastresError, match="no regular file"):
            read(special(kind, folder / name))


@pytest.mark.fault(42)
@pytest.mark.parametrize("kind", KINDS)
def test_one_in_a_packed_folder_or_among_checkpoints(kind, packed, tmp_path):
    manifest = load_manifest(packed)
    special(kind, tmp_path / "val.labels.npy")
    with pytest.raises(FastresError, match="is no regular file, expected 288 bytes"):
        verified_array(tmp_path, manifest, "val.labels.npy")
    (tmp_path / "checkpoints").mkdir()
    special(kind, tmp_path / "checkpoints" / f"stage0-epoch001-step000000-{'0' * 16}.pt")
    with pytest.raises(FastresError, match="all 1 checkpoints are damaged"):
        load_checkpoint(tmp_path / "checkpoints")


@pytest.mark.fault(42)
def test_predict_and_evaluate_end_with_a_sentence(tmp_path, capsys):
    pipe = special("pipe", tmp_path / "pipe")
    write_image(tmp_path / "x.jpg", picture(16, 0))
    for command in (
        lambda: predict.main([str(tmp_path / "x.jpg"), "--model", str(pipe)]),
        lambda: evaluate.main([str(pipe)]),
    ):
        assert run_command(command) == 4
        assert "no regular file" in capsys.readouterr().err
