"""preprocess/pack.py: again, together with another, killed, interrupted, and on a full disk (faults 11 and 12)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest
from PIL import Image

from fastres.data.manifest import load_manifest
from preprocess.report import SINCE
from preprocess.staging import Staging
from tests.support.packing import (
    COMMAND,
    ROOT,
    arrays,
    carriers,
    check_after_kill,
    large_tree,
    names_in,
    packing,
    spoil,
    verify_all,
    wait_for,
)
from tests.support.trees import picture, read_image, wnid, write_image, write_tree, zip_tree


def test_up_to_date_unless_something_changed(tree, packer, tmp_path):
    root, packed = tree[0], tmp_path / "packed"
    image = root / f"train/{wnid(1)}/images/{wnid(1)}_2.JPEG"

    def status(*arguments, source=root):
        code, out, err = packer("--source", source, "--json", *arguments)
        assert code == 0, err
        return json.loads(out)["status"]

    assert [status(), status(), status("--workers", 1)] == ["packed", "up to date", "up to date"]
    stamp = {p.name: p.stat().st_mtime_ns for p in packed.iterdir()}
    assert status() == "up to date" and {p.name: p.stat().st_mtime_ns for p in packed.iterdir()} == stamp
    changes = [
        lambda: write_image(image, picture(16, 12345)),  # in place
        lambda: (root / "words.txt").write_text(f"{wnid(0)}\tnew name\n"),
        lambda: os.utime(packed / "val.images.npy", ns=(1, 1)),
        lambda: (packed / "val.labels.npy").unlink(),
        lambda: (packed / "manifest.json").write_text("{}"),
        lambda: (packed / ".pack-state.json").write_text("{"),
        lambda: shutil.rmtree(root / "test"),
    ]
    for i, change in enumerate(changes):
        change()
        assert [status(), status()] == ["packed", "up to date"], i
        verify_all(packed)
    assert not list(packed.glob("test.*"))  # gone with the split
    assert load_manifest(packed).classes[0].name == "new name"
    row = arrays(packed, "train")[2].index(str(image.relative_to(root)))
    np.testing.assert_array_equal(arrays(packed, "train")[0][row], read_image(image))
    assert [status("--on-bad", "skip"), status("--on-bad", "skip")] == ["packed", "up to date"]
    archive = zip_tree(root, tmp_path / "tiny.zip")
    assert [status(source=archive), status(source=archive)] == ["packed", "up to date"]
    os.utime(archive, ns=(5, 5))
    assert status(source=archive) == "packed"


def test_a_failed_run_leaves_the_old_packing(tree, packer, tmp_path):
    assert packer("--source", tree[0])[0] == 0
    before = verify_all(tmp_path / "packed")
    spoil(tree[0])
    assert packer("--source", tree[0])[0] == 3
    assert verify_all(tmp_path / "packed") == before


def test_a_source_removed_after_packing_is_not_downloaded_again(tree, tmp_path, monkeypatch, packer):
    monkeypatch.chdir(tmp_path)
    tree[0].rename("tiny-imagenet-200")
    assert packer()[0] == 0
    shutil.rmtree("tiny-imagenet-200")
    code, out, _ = packer()
    assert code == 0 and "up to date" in out


def test_two_packers_in_one_folder(tree, packer, tmp_path):
    with Staging(tmp_path / "packed"):
        done = subprocess.run(
            [*COMMAND, "--source", tree[0], "--out", tmp_path / "packed"], capture_output=True, text=True
        )
    assert done.returncode == 2 and f"process {os.getpid()}" in done.stderr
    assert packer("--source", tree[0])[0] == 0


@pytest.mark.slow
@pytest.mark.fault(11)
def test_sigkill_in_the_middle(tmp_path, packer):
    large_tree(tmp_path / "tiny")
    packed, mark = tmp_path / "packed", uuid.uuid4().hex
    with packing(tmp_path / "tiny", packed, mark) as process:
        images = packed / ".packing" / "train.images.npy"
        assert wait_for(lambda: images.exists() and images.stat().st_size > 2**20)
        assert len(carriers(mark)) == 3
        process.kill()
    assert wait_for(lambda: not carriers(mark)), "orphans"
    assert set(names_in(packed)) == {".pack.lock", ".packing"}
    code, _, err = packer("--source", tmp_path / "tiny", "--workers", 1)
    assert code == 0, err
    assert not {".pack.lock", ".packing"} & set(names_in(packed))
    assert packer("--source", tmp_path / "tiny", out=tmp_path / "again")[0] == 0
    assert verify_all(packed).data_digest == verify_all(tmp_path / "again").data_digest


@pytest.mark.fault(11)
@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path, packer):
    large_tree(tmp_path / "tiny")
    assert packer("--source", tmp_path / "tiny", out=tmp_path / "reference")[0] == 0
    reference = load_manifest(tmp_path / "reference")
    expected = {name: entry["sha256"] for name, entry in reference.files.items()}
    packed = tmp_path / "packed"
    start = time.monotonic()
    with packing(tmp_path / "tiny", packed, "none") as process:
        process.communicate()
    whole = time.monotonic() - start
    killed = 0
    for i, delay in enumerate(np.random.default_rng(0).uniform(0.05, whole, 10)):
        mark = uuid.uuid4().hex
        if i % 2:  # over nothing, and over an older packing
            shutil.rmtree(packed)
        else:
            (packed / ".pack-state.json").unlink(missing_ok=True)
        with packing(tmp_path / "tiny", packed, mark) as process:
            try:
                process.communicate(timeout=delay)
            except subprocess.TimeoutExpired:
                killed += 1
            process.kill()
        assert wait_for(lambda mark=mark: not carriers(mark)), "orphans"
        if packed.exists():
            check_after_kill(packed, expected)
        with packing(tmp_path / "tiny", packed, mark) as process:
            _, err = process.communicate()
        assert process.returncode == 0, err
        assert verify_all(packed).data_digest == reference.data_digest
    assert killed >= 5


@pytest.mark.slow
def test_sigkill_while_workers_start_leaves_no_words(tree, tmp_path):
    """Workers that have not heard yet what to do end without a traceback, too."""
    mark = uuid.uuid4().hex
    with packing(tree[0], tmp_path / "packed", mark) as process:
        assert wait_for(lambda: len(carriers(mark)) > 1)
        process.kill()
        assert wait_for(lambda: not carriers(mark)), "orphans"
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.slow
def test_interrupt_cleans_up(tmp_path):
    large_tree(tmp_path / "tiny")
    packed, mark = tmp_path / "packed", uuid.uuid4().hex
    with packing(tmp_path / "tiny", packed, mark) as process:
        images = packed / ".packing" / "train.images.npy"
        assert wait_for(lambda: images.exists() and images.stat().st_size > 2**20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 75 and b"Traceback" not in err
    assert wait_for(lambda: not carriers(mark)) and not packed.exists()


@pytest.mark.fault(12)
def test_too_little_space_is_said_first(tree, packer, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 777, 777))
    code, _, err = packer("--source", tree[0])
    assert code == 4 and "found 777 bytes free, expected the" in err and "needed" in err
    assert names_in(tmp_path / "packed") == []


@pytest.mark.fault(12)
def test_disk_that_fills_while_writing(tree, tmp_path):
    """A real small disk, in a mount namespace of its own, and a check of free space that is fooled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    write_tree(tmp_path / "big", classes=4, side=64, train=60, val=3)
    program = (
        "import sys; from fastres.machine.command import run_command; from preprocess import pack; from "
        "preprocess.staging import Staging; Staging.require_space = lambda *_: None; sys.exit(run_command(pack.main))"
    )
    script = (
        f"mount -t tmpfs -o size=2m none {disk} || exit 99; "
        f"{sys.executable} -c '{program}' --engines resident --source {tmp_path / 'big'} "
        f"--out {disk / 'packed'}; code=$?; "
        f"ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    if done.returncode in (1, 99) and "packed" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "the disk is full, found" in done.stderr and "needed" in done.stderr and "Traceback" not in done.stderr


def test_packed_by_an_older_packer_says_what_changed(tree, packer, tmp_path):
    state = tmp_path / "packed/.pack-state.json"
    assert packer("--source", tree[0])[0] == 0
    before = json.loads(state.read_text())
    before["request"]["options"]["packer"] = 3
    del before["request"]["options"]["background"]
    assert "of an older packer" not in packer("--check")[1]
    manifest = json.loads((tmp_path / "packed/manifest.json").read_text())
    del manifest["versions"]["packer"]
    (tmp_path / "packed/manifest.json").write_text(json.dumps(manifest))
    assert "of an older packer: since then images are turned upright" in packer("--check")[1]
    before["outputs"]["manifest.json"] = [
        (s := (tmp_path / "packed/manifest.json").stat()).st_size,
        s.st_mtime_ns,
        s.st_ino,
    ]
    state.write_text(json.dumps(before))
    code, out, err = packer("--source", tree[0])
    assert code == 0 and out.splitlines()[-1].startswith("packed: ")
    assert f"it is of another packer (3; now {max(SINCE)}: images are turned upright" in err


def test_packed_again_says_why(tree, packer, tmp_path):
    image = tree[0] / f"train/{wnid(1)}/images/{wnid(1)}_2.JPEG"
    Image.fromarray(np.full((16, 16, 4), 0, np.uint8)).save(image, "PNG")  # transparent throughout
    for background, says in (("white", ""), ("#102030", "background was [255, 255, 255], is [16, 32, 48]")):
        code, _, err = packer("--source", tree[0], "--background", background)
        assert code == 0 and says in err and bool(says) == ("again" in err)
    images, _, files = arrays(tmp_path / "packed", "train")
    assert (images[files.index(str(image.relative_to(tree[0])))] == (16, 32, 48)).all()
    assert load_manifest(tmp_path / "packed").source["background"] == "#102030"
    assert packer("--source", tree[0], "--background", "#102030")[1].splitlines()[-1].startswith("up to date")
    write_image(image, picture(16, 8))
    assert "the data set has changed" in packer("--source", tree[0], "--background", "#102030")[2]
