"""sources/zip_tree.py: a damaged, false or hostile zip is refused; nothing is written outside (faults 1 to 4)."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastres.data.manifest import load_manifest
from preprocess import decode_pool
from tests.support.packing import names_in
from tests.support.trees import zip_tree


@pytest.mark.fault(1)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_zip(tree, packer, tmp_path, share):
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    code, _, err = packer("--source", archive)
    assert code == 3
    md5 = subprocess.run(["md5sum", archive], capture_output=True, text=True).stdout.split()[0]
    for says in (f"found {archive.stat().st_size:,} bytes", md5, "248,100,043", "90528d7ca1a48142e341f4ef8d21d0de"):
        assert says in err
    assert names_in(tmp_path) == ["tiny", "tiny.zip"]


@pytest.mark.fault(2)
def test_flipped_bytes_in_a_zip(tree, packer, tmp_path):
    """One flipped byte anywhere: refused, or (in a time stamp, say) without any effect on what is packed."""
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    data = archive.read_bytes()
    assert packer("--source", archive)[0] == 0
    expected = load_manifest(tmp_path / "packed").data_digest
    with zipfile.ZipFile(archive) as file:
        inside = [m.header_offset + 30 + len(m.filename) + 5 for m in file.infolist() if m.compress_size > 10]
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, len(data), 40).tolist()
    for position in [*inside[::4], *anywhere]:
        archive.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        code, _, err = packer("--source", archive, out=tmp_path / "again")
        if position in inside or code:
            assert (code, names_in(tmp_path / "again")) == (3, []), (position, err)
        else:
            assert load_manifest(tmp_path / "again").data_digest == expected, position


@pytest.mark.fault(2)
def test_damage_is_seen_by_workers_too(tree, packer, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 4 * 16 * 16 * 3)
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo("tiny-imagenet-200/test/images/test_7.JPEG")
    data = bytearray(archive.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    archive.write_bytes(data)
    code, _, err = packer("--source", archive, "--workers", 2, "--on-bad", "skip")
    assert code == 3 and "test_7.JPEG is damaged" in err and "expected 248,100,043" in err
    assert names_in(tmp_path / "packed") == []


@pytest.mark.fault(3)
def test_html_saved_as_zip(packer, tmp_path):
    (tmp_path / "tiny.zip").write_text("\n<!DOCTYPE html><html>Please log in</html>")
    code, _, err = packer("--source", tmp_path / "tiny.zip")
    assert code == 3 and "found an HTML page" in err and "the download failed" in err


@pytest.mark.fault(4)
@pytest.mark.parametrize("name", ["../../evil.txt", "/tmp/evil-fastres.txt", "tiny/train/../../x", "..\\x", "C:\\x"])
def test_members_that_point_outside(tree, packer, tmp_path, name):
    archive = zip_tree(tree[0], tmp_path / "below" / "tiny.zip") if (tmp_path / "below").mkdir() is None else None
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"evil")
    code, _, err = packer("--source", archive, out=tmp_path / "below" / "packed")
    assert code == 3 and "points outside" in err and name.replace("\\", "\\\\") in err
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/evil-fastres.txt").exists()


def test_zip_that_lies_about_a_size(tree, packer, tmp_path):
    """A member that inflates to more than its directory entry says is cut at the promise, and refused."""
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo("tiny-imagenet-200/words.txt")
        start = data.index(b"tiny-imagenet-200/words.txt", file.start_dir) - 46
    data[start + 24] ^= 1  # the directory's uncompressed size
    data[member.header_offset + 22] ^= 1  # and the header's, so that they agree
    archive.write_bytes(data)
    code, _, err = packer("--source", archive)
    assert code == 3 and "words.txt is damaged" in err


@pytest.mark.parametrize(("field", "value"), [(20, 0xFFFFFFF0), (24, 0xFFFFFFF0), (42, 0xFFFFFFF0), (42, 30000)])
def test_zip_directory_with_absurd_numbers(tree, packer, tmp_path, field, value):
    """Sizes (20, 24) and offset (42) in a directory entry: no 4 GB allocation, no traceback."""
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        start = data.index(b"tiny-imagenet-200/words.txt", file.start_dir) - 46
    data[start + field : start + field + 4] = value.to_bytes(4, "little")
    archive.write_bytes(data)
    code, _, err = packer("--source", archive)
    assert code == 3 and "words.txt" in err and "damaged" in err
