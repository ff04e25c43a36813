"""The packer's output folder where a user has something of his own in it."""

import os
import shutil

import pytest

from fastres.machine.command import run_command
from preprocess import pack
from tests.evaluate.test_outputs import WEIGHTS, refused, run  # noqa: F401 - a fixture


def ends(main, *words) -> int:
    return run_command(lambda: main([str(word) for word in words]))


@pytest.mark.fault(37)
def test_the_packer_replaces_no_link_and_no_folder_of_a_users(tree, tmp_path, capsys):
    out, mine = tmp_path / "packed", tmp_path / "mine.txt"
    words = ("--source", tree[0], "--out", out, "--workers", "1", "--engines", "resident")
    (out / ".packing").mkdir(parents=True)
    (out / ".packing" / "notes.txt").write_text("mine")
    assert ends(pack.main, *words) == 2 and ".packing, which the packer did not leave" in capsys.readouterr().err
    shutil.rmtree(out)
    assert ends(pack.main, *words) == 0
    os.replace(out / "train.files.txt", mine)
    (out / "train.files.txt").symlink_to(mine)
    (out / ".pack-state.json").unlink()  # or there is nothing to do
    capsys.readouterr()
    assert ends(pack.main, *words) == 2 and "holds train.files.txt" in capsys.readouterr().err
    assert (out / "train.files.txt").is_symlink() and mine.stat().st_size
