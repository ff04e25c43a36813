"""sources/tar_tree.py and archive.py: tars are read as zips are, with the same checks; foreign formats are named."""

import bz2
import gzip
import io
import lzma
import stat
import subprocess
import sys
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from fastres.data.manifest import load_manifest
from preprocess.sources import tar_tree
from tests.support.packing import ROOT, names_in
from tests.support.trees import picture, write_image, zip_tree

pytestmark = pytest.mark.fault(33)
PACK = {"tar": bytes, "tgz": gzip.compress, "tar.bz2": bz2.compress, "tar.xz": lzma.compress}


def tar_of(root, prefix="photos", add=(), how=tarfile.PAX_FORMAT):
    """The tree as a tar's bytes; add: (TarInfo, content) of more members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=how) as archive:
        archive.add(root, prefix)
        for info, content in add:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("prefix", ["photos", ".", "a/b"])
@pytest.mark.parametrize("ending", PACK)
def test_a_tar_packs_like_its_folder(tree, packer, tmp_path, ending, prefix):
    assert packer("--source", tree[0])[0] == 0
    archive = tmp_path / f"photos.{ending}"
    archive.write_bytes(PACK[ending](tar_of(tree[0], prefix)))
    for workers in (1, 2):
        out = tmp_path / f"again{workers}"
        code, _, err = packer("--source", archive, "--workers", workers, out=out)
        assert code == 0, err
        assert load_manifest(out).data_digest == load_manifest(tmp_path / "packed").data_digest
        assert load_manifest(out).source["kind"] == "tar" and not [n for n in names_in(out) if "source" in n]
    assert "up to date" in packer("--source", archive, out=tmp_path / "again1")[1]


@pytest.mark.parametrize("name", ["photos.zip", "photos", "photos.tar"])
def test_the_first_bytes_decide_not_the_name(tree, packer, tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(tar_of(tree[0], how=tarfile.GNU_FORMAT)))
    assert packer("--source", tmp_path / name)[0] == 0


def test_zstd_through_whichever_library_is_there(tree, packer, tmp_path, monkeypatch):
    archive = tmp_path / "photos.tar.zst"
    archive.write_bytes(b"\x28\xb5\x2f\xfd" + tar_of(tree[0]))
    for name in tar_tree.ZSTD:
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = packer("--source", archive)
    assert code == 4 and "pip install zstandard" in err and names_in(tmp_path / "packed") == []

    def open_it(file, mode):  # a library of the same interface, of which this tests the use
        return io.BytesIO(file.read()[4:])

    monkeypatch.setitem(sys.modules, "zstandard", SimpleNamespace(open=open_it))
    assert packer("--source", archive)[0] == 0


# ---- the same checks


@pytest.mark.parametrize("name", ["../../evil.png", "/tmp/evil.png", "photos/train/../../x.png"])
def test_members_that_point_outside(tree, packer, tmp_path, name):
    archive = tmp_path / "photos.tar"
    archive.write_bytes(tar_of(tree[0], add=[(member(name), b"evil")]))
    before = sorted(tmp_path.rglob("*"))
    code, _, err = packer("--source", archive)
    assert code == 3 and "points outside" in err and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "photos/nowhere"),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CHRTYPE, ""),
    ],
)
def test_members_that_are_no_files(tree, packer, tmp_path, kind, link):
    archive = tmp_path / "photos.tar"
    archive.write_bytes(tar_of(tree[0], add=[(member("photos/train/x.png", kind, link), b"")]))
    code, _, err = packer("--source", archive)
    assert code == 3 and "member photos/train/x.png is" in err and "give the folder to --source" in err


def test_a_hard_link_is_the_file_that_came_before(tree, packer, tmp_path):
    """As GNU tar stores the second name of a file."""
    first = "photos/test/images/test_1.JPEG"
    archive = tmp_path / "photos.tar"
    archive.write_bytes(tar_of(tree[0], add=[(member("photos/test/images/test_99.JPEG", tarfile.LNKTYPE, first), b"")]))
    assert packer("--source", archive)[0] == 0
    images = np.load(tmp_path / "packed" / "test.images.npy")
    assert len(images) == 13
    np.testing.assert_array_equal(images[12], images[1])


def test_two_members_of_one_name(tree, packer, tmp_path):
    twice = [(member("photos/words.txt"), b"a"), (member("./photos/words.txt"), b"b")]
    (tree[0] / "words.txt").unlink()
    archive = tmp_path / "photos.tar"
    archive.write_bytes(tar_of(tree[0], add=twice))
    code, _, err = packer("--source", archive)
    assert code == 3 and "two members are named photos/words.txt" in err


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated(tree, packer, tmp_path, ending, share):
    archive = tmp_path / "photos.tar"
    data = tar_of(tree[0])
    data = PACK[ending](data[: len(data.rstrip(b"\0")) + 1024] if ending == "tar" else data)
    archive.write_bytes(data[: int((len(data) - 1024 * (ending == "tar")) * share)])
    code, _, err = packer("--source", archive)
    assert code == 3 and "not a whole tar" in err and "get it again" in err and "delete" not in err, err
    assert f"found {archive.stat().st_size:,} bytes with md5" in err and names_in(tmp_path / "packed") == []


def test_cut_between_two_members(tree, packer, tmp_path):
    """Python's tarfile takes this for a whole tar."""
    data = tar_of(tree[0])
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        at = file.getmembers()[20].offset
    (tmp_path / "photos.tar").write_bytes(data[:at])
    code, _, err = packer("--source", tmp_path / "photos.tar")
    assert code == 3 and "without an end mark" in err


def test_a_flipped_bit_in_any_header(tree, packer, tmp_path):
    """The list of a damaged tar would just end earlier: images would vanish in silence."""
    data = tar_of(tree[0], how=tarfile.USTAR_FORMAT)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        offsets = [info.offset for info in file.getmembers()]
    for offset in offsets[1::7]:
        for at in (0, 3, 124, 148, 156):  # name, size, checksum, type
            broken = bytearray(data)
            broken[offset + at] ^= 1
            (tmp_path / "photos.tar").write_bytes(broken)
            code, _, err = packer("--source", tmp_path / "photos.tar")
            assert code == 3 and "not a whole tar" in err, (offset, at, err)


@pytest.mark.parametrize("ending", ["tgz", "tar.bz2", "tar.xz"])
def test_a_flipped_bit_in_what_it_is_packed_in(tree, packer, tmp_path, ending):
    data = bytearray(PACK[ending](tar_of(tree[0])))
    data[len(data) // 2] ^= 16
    (tmp_path / "photos.tar").write_bytes(data)
    code, _, err = packer("--source", tmp_path / "photos.tar")
    assert code == 3 and "cannot be unpacked" in err


def test_a_bomb_is_not_inflated(packer, tmp_path, monkeypatch):
    monkeypatch.setattr(tar_tree, "SMALL", 1 << 22)
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bytes(1 << 26)))
    code, _, err = packer("--source", tmp_path / "bomb.tgz")
    assert code == 3 and "inflates to more than 200 times" in err and names_in(tmp_path / "packed") == []


def test_gzip_of_something_else(packer, tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(b"a,b,c\n" * 1000))
    code, _, err = packer("--source", tmp_path / "x.gz")
    assert code == 3 and "not a whole tar" in err


# ---- foreign formats, zips of Windows, another Python


@pytest.mark.parametrize(
    ("start", "says"),
    [(b"Rar!\x1a\x07\x01\0", "a RAR archive"), (b"7z\xbc\xaf\x27\x1c", "a 7z archive"), (b"\x89HDF\r\n\x1a\n", "HDF5")],
)
@pytest.mark.parametrize("name", ["photos.zip", "photos.tgz", "photos"])
def test_a_foreign_format_is_named(packer, tmp_path, start, says, name):
    (tmp_path / name).write_bytes(start + bytes(1000))
    code, _, err = packer("--source", tmp_path / name)
    assert code == 3 and says in err and "unpack it and give the folder to --source" in err and "delete" not in err


def test_an_image_as_source_is_named(packer, tmp_path):
    write_image(tmp_path / "x.jpg", picture(16, 0))
    code, _, err = packer("--source", tmp_path / "x.jpg")
    assert code == 3 and "one JPEG image" in err


def test_a_zip_of_windows(tree, packer, tmp_path):
    assert packer("--source", tree[0])[0] == 0
    with zipfile.ZipFile(tmp_path / "win.zip", "w") as archive:
        for path in sorted(p for p in tree[0].rglob("*") if p.is_file()):
            info = zipfile.ZipInfo("x")
            info.filename = "photos\\" + str(path.relative_to(tree[0])).replace("/", "\\")
            archive.writestr(info, path.read_bytes())
    code, _, err = packer("--source", tmp_path / "win.zip", out=tmp_path / "again")
    assert code == 0, err
    assert load_manifest(tmp_path / "again").data_digest == load_manifest(tmp_path / "packed").data_digest


def test_a_link_in_a_zip(tree, packer, tmp_path):
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    link = zipfile.ZipInfo("tiny-imagenet-200/train/x.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, "/etc/passwd")
    code, _, err = packer("--source", archive)
    assert code == 3 and "train/x.png is a link" in err


def test_an_empty_folder_in_an_archive_is_a_class(packer, tmp_path):
    for label in ("apple", "bread"):
        for split in ("train", "val"):
            write_image(tmp_path / f"photos/{split}/{label}/0.jpg", picture(16, len(label)))
    (tmp_path / "photos/train/cup").mkdir()
    (tmp_path / "photos.tar").write_bytes(tar_of(tmp_path / "photos"))
    for source in (tmp_path / "photos.tar", zip_tree(tmp_path / "photos", tmp_path / "photos.zip")):
        code, _, err = packer("--source", source)
        assert code == 3 and "(train/cup)" in err


def test_outside_of_the_environment():
    """A Python without the project's libraries: one sentence, exit code 4."""
    done = subprocess.run([sys.executable, "-S", ROOT / "preprocess/pack.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 4 and done.stderr.startswith("error: ") and "numpy" in done.stderr
    assert done.stderr.count("\n") == 1 and "make setup" in done.stderr


def test_a_tar_from_before_they_had_a_magic(tree, packer, tmp_path):
    done = subprocess.run(["tar", "--format=v7", "-cf", tmp_path / "old", "-C", tree[0].parent, tree[0].name])
    if done.returncode:
        pytest.skip("no GNU tar here")
    code, _, err = packer("--source", tmp_path / "old")
    assert code == 0, err
