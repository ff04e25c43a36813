"""The packer is found whatever is called `preprocess` in the working folder."""

import os
import subprocess
import sys

import pytest

from fastres.machine import packer
from tests.support.trees import write_tree

CALLED = "import fastres; print(fastres.pack('tree', engines='resident', out='packed').num_classes)"


def run(folder, *words):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=100, env=environment
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("how", ["module", "call"])
def test_a_users_own_preprocess_is_left_alone(tmp_path, how):
    write_tree(tmp_path / "tree")
    (tmp_path / "preprocess.py").write_text("raise SystemExit('the user\\'s own was run')\n")
    arguments = ("-m", "fastres", "pack", "--source", "tree", "--engines", "resident")
    code, out, err = run(tmp_path, *(arguments if how == "module" else ("-c", CALLED)))
    assert code == 0, err
    assert "4 classes" in out if how == "module" else out == "4\n"


def test_a_users_own_that_is_loaded_is_said(tmp_path):
    (tmp_path / "preprocess.py").write_text("")
    program = "import preprocess, fastres\ntry:\n fastres.pack('x')\nexcept fastres.UsageError as e:\n print(e)"
    code, out, err = run(tmp_path, "-c", program)
    assert code == 0 and "give yours another name" in out, err


def test_the_remedy_is_what_can_be_typed_here():
    """In a checkout README's command; the wheel's tests see the other."""
    assert packer.COMMAND == "python preprocess/pack.py" and packer.OURS.is_file()
