"""Faults 11 to 15 with the formats of ffcv and dali, and in training. tests/support/fault_table.py lists all faults."""

import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from fastres.data.engines import ENGINES
from fastres.data.manifest import load_manifest, sha256_of
from fastres.machine.command import run_command
from fastres.train import command as train_command
from preprocess import decode_pool
from tests.conftest import TINY_FILE
from tests.support.packing import ROOT, carriers, large_tree, names_in, need, packing, verify_all, wait_for
from tests.support.trees import picture, wnid, write_image, write_tree

ALL = ("--engines", ",".join(ENGINES))


@pytest.fixture
def all_formats():
    need("ffcv")
    need("dali")


@pytest.mark.slow
@pytest.mark.fault(13)
def test_workers_do_not_change_a_byte_of_any_format(all_formats, tmp_path, packer, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 2 * 16 * 16 * 3)
    write_tree(tmp_path / "tiny")
    write_image(tmp_path / f"tiny/train/{wnid(3)}/images/{wnid(3)}_2.JPEG", picture(24, 0))  # a bad one shifts the rows
    digests = set()
    for workers in (1, 16):
        out = tmp_path / f"packed{workers}"
        code, _, err = packer("--source", tmp_path / "tiny", "--workers", workers, "--on-bad", "skip", *ALL, out=out)
        assert code == 0, err
        digests.add(verify_all(out).data_digest)
        assert {"train.beton", "train.tar", "train.idx", "train.images.npy"} <= set(names_in(out))
    assert len(digests) == 1


def test_fewer_formats_leave_no_stale_files(all_formats, tmp_path, packer):
    write_tree(tmp_path / "tiny")
    contents = set()
    for engines, expected in (("resident,ffcv,dali", {"npy", "txt", "beton", "tar", "idx"}), ("ffcv", {"beton"})):
        code, _, err = packer("--source", tmp_path / "tiny", "--engines", engines)
        assert code == 0, err
        contents.add(load_manifest(tmp_path / "packed").content_digest)
        endings = {name.rsplit(".")[-1] for name in names_in(tmp_path / "packed") if name.startswith("train.")}
        assert endings == expected | {"npy", "txt"}  # labels and paths are every engine's
    assert len(contents) == 1  # so that a run goes on when its data are packed for one more engine


@pytest.mark.slow
@pytest.mark.fault(11)
def test_sigkill_while_all_formats_are_written(all_formats, tmp_path, packer):
    large_tree(tmp_path / "tiny")
    packed, mark = tmp_path / "packed", uuid.uuid4().hex
    shared = set(names_in(Path("/dev/shm")))
    with packing(tmp_path / "tiny", packed, mark, *ALL) as process:
        tar = packed / ".packing" / "train.tar"
        assert wait_for(lambda: tar.exists() and tar.stat().st_size > 2**20, 60)
        process.kill()
    assert wait_for(lambda: not carriers(mark)), "orphans"
    assert set(names_in(packed)) == {".pack.lock", ".packing"}
    # the writers' resource tracker outlives them for a moment to do this
    assert wait_for(lambda: set(names_in(Path("/dev/shm"))) <= shared), "shared memory left behind"
    assert packer("--source", tmp_path / "tiny", *ALL)[0] == 0
    assert not {".pack.lock", ".packing"} & set(names_in(packed))
    verify_all(packed)


@pytest.mark.slow
@pytest.mark.fault(12)
@pytest.mark.parametrize("engine", ["ffcv", "dali"])
def test_disk_that_fills_under_any_format(tmp_path, engine):
    """A real small disk, in a mount namespace of its own, and a check of free space that is fooled."""
    need(engine)
    disk = tmp_path / "disk"
    disk.mkdir()
    write_tree(tmp_path / "big", classes=4, side=64, train=300, val=3)
    program = (
        "import sys; from fastres.machine.command import run_command; from preprocess import pack; from "
        "preprocess.staging import Staging; Staging.require_space = lambda *_: None; sys.exit(run_command(pack.main))"
    )
    script = (
        f"mount -t tmpfs -o size=1m none {disk} || exit 99; {sys.executable} -c '{program}' --engines {engine} "
        f"--source {tmp_path / 'big'} --out {disk / 'packed'}; code=$?; ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    if done.returncode in (1, 99) and "packed" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "the disk is full, found" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.fault(15)
@pytest.mark.slow
def test_training_does_not_depend_on_the_engine(all_formats, packed_for_engines, tmp_path):
    """The same command with each engine: the same final weights, bit for bit (CPU)."""
    digests = {}
    for engine in ENGINES:
        folder = tmp_path / engine
        code = train_command.main(
            [
                "--schedule",
                str(TINY_FILE),
                "--data",
                str(packed_for_engines),
                "--engine",
                engine,
                "--run-dir",
                str(folder),
                "--wandb",
                "off",
                "--device",
                "cpu",
                "--precision",
                "fp32",
            ]
        )
        assert code == 0
        digests[engine] = sha256_of(folder / "final.safetensors")
    assert len(set(digests.values())) == 1, digests


def test_training_refuses_a_damaged_stream_and_says_so(all_formats, packed_for_engines, tmp_path, capsys):
    folder = shutil.copytree(packed_for_engines, tmp_path / "packed")
    with open(folder / "val.beton", "r+b") as file:
        file.truncate(load_manifest(folder).files["val.beton"]["bytes"] // 2)
    command = ["--schedule", str(TINY_FILE), "--data", str(folder), "--engine", "ffcv", "--wandb", "off"]
    code = run_command(lambda: train_command.main([*command, "--run-dir", str(tmp_path / "run"), "--device", "cpu"]))
    assert code == 3 and "val.beton: found" in capsys.readouterr().err
