"""Running the packer in tests, in this process or as one of its own, and looking at what it left."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fastres.data.libraries import installed, module_of
from fastres.data.manifest import check_sizes, load_manifest, sha256_of, verify_file
from fastres.machine.command import run_command
from preprocess import pack
from tests.support.trees import picture, wnid, write_image, write_tree

ROOT = Path(__file__).resolve().parents[2]
PACK = [sys.executable, str(ROOT / "preprocess" / "pack.py")]
COMMAND = [*PACK, "--engines", "resident"]  # without the seconds that the other formats' libraries take to load


def need(engine):
    """Skip the test where the engine's library is missing; in CI, where all are installed, fail it."""
    if not installed(engine):
        reason = f"{module_of(engine)} is not installed"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


class Packer:
    """The command in this process: run(*arguments) -> (exit code, stdout, stderr)."""

    def __init__(self, folder, capsys):
        self.out, self.capsys = folder / "packed", capsys

    def __call__(self, *arguments, out=None):
        engines = () if "--engines" in arguments else ("--engines", "resident")
        options = [*map(str, (*engines, *arguments)), "--out", str(out or self.out)]
        code = run_command(lambda: pack.main(options))
        return (code, *self.capsys.readouterr())


def arrays(packed, split):
    images = np.load(packed / f"{split}.images.npy", mmap_mode="r")
    labels = np.load(packed / f"{split}.labels.npy") if (packed / f"{split}.labels.npy").exists() else None
    return images, labels, (packed / f"{split}.files.txt").read_text().splitlines()


def pixels_and_labels(packed):
    """sha256 of all that does not name paths: equal for every layout of the same data."""
    return {p.name: sha256_of(p) for p in sorted(packed.glob("*.npy"))}


def names_in(folder):
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def verify_all(packed):
    manifest = load_manifest(packed)
    check_sizes(packed, manifest)
    for name in manifest.files:
        verify_file(packed, manifest, name)
    return manifest


def packing(tree, out, mark, *arguments):
    """The command as a process of its own; its children carry `mark` in their environment."""
    environment = os.environ | {"FASTRES_TEST_MARK": mark}
    command = [*COMMAND, "--source", str(tree), "--out", str(out), "--workers", "2", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def carriers(mark):
    """Live processes with the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FASTRES_TEST_MARK={mark}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def check_after_kill(packed, expected):
    """Whatever has a final name is whole."""
    for name, digest in expected.items():
        if (packed / name).exists():
            assert sha256_of(packed / name) == digest, name
    if (packed / "manifest.json").exists():
        verify_all(packed)


def large_tree(root):
    """Enough chunks that packing lasts: 6,000 images of 64 px."""
    write_tree(root, classes=3, side=64, train=2, val=1, test=1)
    source = (root / f"train/{wnid(0)}/images/{wnid(0)}_1.JPEG").read_bytes()
    for k in range(3):
        for i in range(2, 2000):
            (root / f"train/{wnid(k)}/images/{wnid(k)}_{i}.JPEG").write_bytes(source)


def spoil(root):
    """Damages five images in five ways; returns their paths and what the list says of each."""
    whole = (root / "val/images/val_4.JPEG").read_bytes()
    w = wnid(1)
    bad = {
        f"train/{w}/images/{w}_1.JPEG": (whole[:-60], "truncated"),
        f"train/{w}/images/{w}_3.JPEG": (b"", "empty file"),
        "val/images/val_4.JPEG": (b"404 Not Found\n", "b'404 Not Foun' at its start"),
        "val/images/val_11.JPEG": (None, "found 24x24 pixels, expected 16x16"),
        "test/images/test_0.JPEG": (None, "found 24x24 pixels, expected 16x16"),
    }
    for path, (data, _) in bad.items():
        if data is None:
            write_image(root / path, picture(24, 1))
        else:
            (root / path).write_bytes(data)
    return {path: says for path, (_, says) in bad.items()}
