"""The wheel: what is in it, and that it packs and trains from a folder that knows nothing of a checkout."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from fastres import __version__
from tests.support.container import copy_sources
from tests.support.demo import keep_compiled
from tests.support.trees import write_tree

ROOT = Path(__file__).parents[2]
SHORT = "width=16 batch_size=8 weights=shipped:small_world_resnet18_w16 " + " ".join(
    f"stages.{stage}.epochs=1" for stage in range(4)
)


def run(command: list, folder: Path) -> str:
    """What it prints, of W&B or a PYTHONPATH nothing known; it must end with 0."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "PYTHON"))}
    words = [str(word) for word in command]
    environment = {**unset, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from what the Dockerfile copies, so that this is enough for the container too."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_sources(folder)
    build = ["pip", "wheel", ".", "--wheel-dir", folder, "--no-deps", "--no-build-isolation", "--no-index"]
    run([sys.executable, "-m", *build], folder / "src")
    (file,) = folder.glob("fastres-*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_two_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "fastres = fastres.__main__:console" in archive.read(entries).decode()
        (facts,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        assert f"\nVersion: {__version__}\n" in archive.read(facts).decode()
    files = (path for room in ("fastres", "preprocess") for path in (ROOT / room).rglob("*") if path.is_file())
    here = {str(path.relative_to(ROOT)) for path in files if "__pycache__" not in path.parts}
    assert packed == here


@pytest.mark.slow
def test_the_wheel_packs_and_trains_from_another_folder(wheel, tmp_path):
    """In an environment of its own, to which the one of these tests lends torch and the other libraries."""
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv/bin/python"
    install = ["--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    run([sys.executable, "-m", "pip", *install], tmp_path)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")  # searched after `site` itself
    keep_compiled(site)
    elsewhere = tmp_path / "elsewhere"
    write_tree(elsewhere / "photos")

    assert run([python, "-c", "import fastres; print(fastres.__file__)"], elsewhere).startswith(str(site))
    if find_spec("optuna"):  # pip finds fastres in place, and the extra's package where the .pth leads: all is there
        line = ["--python", python, "install", "--no-index", "--dry-run", "fastres[search]"]
        asked = run([sys.executable, "-m", "pip", *line], elsewhere)
        assert "fastres[search]" in asked and "Would install" not in asked
    fastres = tmp_path / "venv/bin/fastres"
    assert "pack" in run([fastres], elsewhere)
    for command in ([fastres, "--version"], [python, "-m", "fastres", "--version"]):
        assert run(command, elsewhere) == f"fastres {__version__}\n"
    assert "--source" in run([fastres, "pack", "--help"], elsewhere)
    assert "no packed" in run([fastres, "doctor"], elsewhere)
    run([fastres, "pack", "--source", "photos", "--workers", "1"], elsewhere)
    trained = run([fastres, "train", "--schedule", "paper", "--run-dir", "run", "--set", *SHORT.split()], elsewhere)
    assert "top-1" in trained and (elsewhere / "run/final.safetensors").is_file()
    answer = run([fastres, "predict", "--model", "run", "photos/val/images/val_0.JPEG"], elsewhere)
    assert "thing" in answer and "%" in answer
    assert "4 classes of 16 px" in run([fastres, "doctor"], elsewhere)
