"""What commands write: links, pipes and devices are left alone, and what holds something is not ours."""

import os
import signal

import pytest

from fastres.machine import files
from fastres.machine.arguments import place
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.files import ours, write_atomic
from fastres.machine.folders import claim, refuse_onto, strangers


@pytest.fixture(autouse=True)
def no_waiting():
    """A pipe that is waited for ends the test instead of all."""
    signal.alarm(20)
    yield
    signal.alarm(0)


def make(path, kind: str, target):
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    else:
        path.symlink_to(target if kind == "link" else target.with_name("nothing"))


@pytest.mark.fault(37)
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder", "device"])
def test_only_regular_files_are_written_or_replaced(tmp_path, kind):
    mine, path = tmp_path / "mine", tmp_path / "out"
    mine.write_text("mine")
    try:
        make(path, kind, mine)
    except PermissionError:
        pytest.skip("no right to make a device here")
    before = path.lstat()
    with pytest.raises(MachineError, match="expected a file or nothing there"):
        write_atomic(path, b"new")
    for mode in ("ab", "wb", "r+b", "a+b"):
        with pytest.raises(OSError) as refused, open(path, mode, opener=ours):
            pass
        assert str(path) in str(refused.value)
    with pytest.raises(UsageError, match="name another file"):
        refuse_onto("--onnx", path, [], lambda _: True)
    assert mine.read_text() == "mine" and os.path.samestat(before, path.lstat()) and not (tmp_path / "nothing").exists()


@pytest.mark.fault(37)
def test_a_link_planted_as_the_temporary_file_is_not_followed(tmp_path, monkeypatch):
    mine, path = tmp_path / "mine", tmp_path / "out"
    mine.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "0badcafe")  # else nobody knows the name
    (tmp_path / f".out.{os.getpid()}.0badcafe.fastres-tmp").symlink_to(mine)
    with pytest.raises(MachineError, match="File exists"):
        write_atomic(path, b"new")
    assert mine.read_text() == "mine" and not path.exists()


@pytest.mark.fault(37)
def test_an_output_replaces_no_input_by_any_name(tmp_path):
    (tmp_path / "net.pth").write_text("weights")
    os.link(tmp_path / "net.pth", tmp_path / "other.pth")
    (tmp_path / "folder").mkdir()
    for name in ("net.pth", "folder/../net.pth", "other.pth"):
        with pytest.raises(UsageError, match="would overwrite what this command reads"):
            refuse_onto("--safetensors", tmp_path / name, [tmp_path / "net.pth"], lambda _: True)
    with pytest.raises(UsageError, match="there is no folder"):
        refuse_onto("--safetensors", tmp_path / "none" / "x", [], lambda _: True)
    for out in (None, tmp_path / "new", tmp_path / "other.pth"):
        refuse_onto("--safetensors", out, [tmp_path / "absent"], lambda content: content == b"weights")
    with pytest.raises(UsageError, match="holds what this command does not write"):
        refuse_onto("--safetensors", tmp_path / "other.pth", [], lambda content: content != b"weights")


@pytest.mark.fault(37)
def test_a_claimed_folder_is_known_again_and_others_are_refused(tmp_path):
    claim(tmp_path / "a" / "b", ".mark", "a study's folder")
    (tmp_path / "a" / "b" / "report.html").write_text("ours")
    claim(tmp_path / "a" / "b", ".mark", "a study's folder")
    for name in ("report.html", "folder/deep/photo.jpg"):
        mine = tmp_path / name.partition(".")[0]
        (mine / name).parent.mkdir(parents=True)
        (mine / name).write_text("mine")
        with pytest.raises(UsageError, match="expected a study's folder, or an empty folder"):
            claim(mine, ".mark", "a study's folder")
        assert not (mine / ".mark").exists()
        claim(mine, ".mark", "a study's folder", lambda: True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        claim(tmp_path / "file", ".mark", "a study's folder")


@pytest.mark.fault(37)
def test_what_holds_nothing_is_no_stranger(tmp_path):
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "out.txt").touch()
    (tmp_path / ".hidden").write_text("x")
    assert strangers(tmp_path) == [] == strangers(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path / "out.txt")
    (tmp_path / "empty" / "deep" / "x").write_text("x")
    assert strangers(tmp_path) == ["empty", "link"] and strangers(tmp_path, lambda path: path.is_dir()) == ["link"]


@pytest.mark.fault(37)
@pytest.mark.parametrize("text", ["", " ", "\t", "a\0b"])
def test_an_empty_place_is_none(text):
    with pytest.raises(Exception, match="expected a name"):
        place(text)
    assert str(place(".")) == "." and str(place("-x")) == "-x"
