"""preprocess/pack.py: what it packs is what the tree holds, and every fault ends in one sentence and a clean folder.

The faults are numbered as in the project's list of faults. Trees come from tests/trees.py, expected pixels from Pillow.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastres.data.manifest import check_sizes, load_manifest, sha256_of, verify_file
from fastres.errors import run_command
from preprocess import decode_pool, pack
from preprocess.staging import Staging
from tests.trees import ODDITIES, DyingReader, picture, read_image, wnid, write_image, write_tree, zip_tree

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, str(ROOT / "preprocess" / "pack.py")]


@pytest.fixture
def tree(tmp_path):
    """A tree of 4 classes at <tmp>/tiny, and its truth: path -> class id."""
    root = tmp_path / "tiny"
    return root, write_tree(root)


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command in this process: run(*arguments) -> (exit code, stdout, stderr). --out is <tmp>/packed."""

    def run(*arguments, out=tmp_path / "packed"):
        code = run_command(lambda: pack.main([*map(str, arguments), "--out", str(out)]))
        return (code, *capsys.readouterr())

    return run


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


# ---- what gets packed


def test_every_row_is_the_image_that_its_line_names(tree, run, tmp_path):
    root, truth = tree
    code, out, err = run("--source", root)
    assert code == 0, err
    manifest = verify_all(tmp_path / "packed")
    seen = []
    for split, labelled in (("train", True), ("val", True), ("test", False)):
        images, labels, files = arrays(tmp_path / "packed", split)
        assert (images.dtype, images.shape) == (np.uint8, (len(files), 16, 16, 3))
        assert manifest.splits[split] == {
            "count": len(files), "labelled": labelled, "skipped": 0, **ODDITIES[split]
        }
        assert labelled == (labels is not None)
        for row, path in enumerate(files):
            np.testing.assert_array_equal(images[row], read_image(root / path), err_msg=path)
            if labelled:
                assert manifest.classes[labels[row]].wnid == truth[path]
        seen += files
    assert sorted(seen) == sorted(truth)
    assert [c.wnid for c in manifest.classes] == [wnid(k) for k in range(4)]
    assert [c.name for c in manifest.classes] == [f"thing {k}" for k in range(4)]
    assert "val" in out and "packed" in out.splitlines()[-1]


def test_order_of_rows_is_class_then_number(tmp_path, run):
    write_tree(tmp_path / "tiny", classes=2, train=12, val=6, test=12)
    assert run("--source", tmp_path / "tiny")[0] == 0
    train, val, test = (arrays(tmp_path / "packed", s)[2] for s in ("train", "val", "test"))
    assert train == [f"train/{w}/images/{w}_{i}.JPEG" for w in (wnid(0), wnid(1)) for i in range(12)]
    assert val == [f"val/images/val_{i}.JPEG" for i in range(12)]
    assert test == [f"test/images/test_{i}.JPEG" for i in range(12)]
    assert arrays(tmp_path / "packed", "train")[1].tolist() == [0] * 12 + [1] * 12


LAYOUTS = {  # fault 5 and 9: what the same data may look like
    "sorted": {"val_layout": "sorted"},
    "bare": {"val_layout": "bare"},
    "inner": {"val_layout": "inner"},
    "crlf": {"newline": "\r\n"},
    "nested once": {},
    "nested twice": {},
    "zip": {},
    "zip without a folder": {},
    "zip nested twice": {},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_same_data(tree, run, tmp_path, name):
    assert run("--source", tree[0])[0] == 0
    nested = {"nested once": "a", "nested twice": "a/tiny-imagenet-200"}.get(name, "")
    other = tmp_path / "other" / nested
    write_tree(other, **LAYOUTS[name])
    source = tmp_path / "other"
    if name.startswith("zip"):
        prefix = {"zip": "tiny-imagenet-200/", "zip nested twice": "a/b/"}.get(name, "")
        source = zip_tree(other, tmp_path / "other.zip", prefix)
    code, _, err = run("--source", source, out=tmp_path / "again")
    assert code == 0, err
    assert pixels_and_labels(tmp_path / "again") == pixels_and_labels(tmp_path / "packed")
    one, two = load_manifest(tmp_path / "packed"), load_manifest(tmp_path / "again")
    assert (one.classes, one.class_digest, one.splits) == (two.classes, two.class_digest, two.splits)
    if "val_layout" not in LAYOUTS[name]:  # the same paths, too
        assert one.data_digest == two.data_digest


def test_order_of_wnids_does_not_matter(tree, run, tmp_path):  # fault 10
    root, _ = tree
    assert run("--source", root)[0] == 0
    lines = (root / "wnids.txt").read_text().split()
    assert lines != sorted(lines)
    (root / "wnids.txt").write_text("\n".join(reversed(lines)))
    assert run("--source", root, out=tmp_path / "again")[0] == 0
    assert load_manifest(tmp_path / "again").data_digest == load_manifest(tmp_path / "packed").data_digest
    assert load_manifest(tmp_path / "again").class_digest == load_manifest(tmp_path / "packed").class_digest


def test_workers_do_not_change_a_byte(tree, tmp_path, run, monkeypatch):  # fault 13
    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 2 * 16 * 16 * 3)  # two images a chunk: 24 chunks
    write_image(tree[0] / f"train/{wnid(3)}/images/{wnid(3)}_2.JPEG", picture(24, 0))  # a bad one shifts the rows
    digests = set()
    for workers in (1, 3, 16):
        out = tmp_path / f"packed{workers}"
        code, _, err = run("--source", tree[0], "--workers", workers, "--on-bad", "skip", out=out)
        assert code == 0, err
        digests.add(verify_all(out).data_digest)
    assert len(digests) == 1


def test_many_classes_from_a_foreign_folder_and_uninstalled(tmp_path):
    """As a user does: another working directory, the source found by its name, the default --out."""
    write_tree(tmp_path / "tiny-imagenet-200", classes=30, side=64, train=2, val=1, test=3)
    done = subprocess.run([*COMMAND, "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["status"], report["side"], report["classes"]) == ("packed", 64, 30)
    assert [report["splits"][s]["count"] for s in ("train", "val", "test")] == [60, 30, 3]
    assert report["data_digest"] == verify_all(tmp_path / "packed").data_digest
    assert names_in(tmp_path) == ["packed", "tiny-imagenet-200"]
    assert names_in(tmp_path / "packed")[:2] == [".pack-state.json", "manifest.json"]


def test_without_test_and_words(tree, run, tmp_path):
    shutil.rmtree(tree[0] / "test")
    (tree[0] / "words.txt").unlink()
    code, out, _ = run("--source", tree[0])
    manifest = verify_all(tmp_path / "packed")
    assert code == 0 and "absent from this data set" in out
    assert (manifest.count("test"), "test" in manifest.splits) == (0, False)
    assert manifest.classes[1].name == wnid(1)


def test_litter_of_other_systems_is_ignored(tree, run, tmp_path):
    assert run("--source", tree[0])[0] == 0
    (tree[0] / f"train/{wnid(0)}/images/._{wnid(0)}_0.JPEG").write_bytes(b"finder")
    (tree[0] / "val/images/.DS_Store").write_bytes(b"finder")
    (tree[0] / "val/images/Thumbs.db").write_bytes(b"explorer")
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/train/x.JPEG", b"finder")
    for source in (tree[0], archive):
        assert run("--source", source, out=tmp_path / "again")[0] == 0
        assert load_manifest(tmp_path / "again").data_digest == load_manifest(tmp_path / "packed").data_digest


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "1", "P with transparency"])
def test_other_modes_become_rgb(tree, run, tmp_path, mode):
    from PIL import Image

    path = tree[0] / "test/images/test_3.JPEG"
    image = Image.fromarray(picture(16, 5)).convert(mode.split()[0])
    extra = {"transparency": bytes(range(0, 250, 10))} if "with" in mode else {}
    image.save(path, "PNG", **extra)
    assert run("--source", tree[0])[0] == 0
    row = arrays(tmp_path / "packed", "test")[0][3]
    expected = image.convert("RGB")
    np.testing.assert_array_equal(row, np.asarray(expected))
    entry = load_manifest(tmp_path / "packed").splits["test"]
    assert entry["converted"][mode.split()[0]] >= 1
    assert entry["grayscale"] == ODDITIES["test"]["grayscale"] + (mode in ("LA", "1"))


# ---- images at fault (6, 7, 8)


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


def test_bad_images_are_all_listed(tree, run, tmp_path):
    bad = spoil(tree[0])
    code, out, err = run("--source", tree[0])
    lines = [line for line in err.splitlines() if line.startswith(("train/", "val/", "test/"))]
    assert (code, out, len(lines)) == (3, "", 5)
    for path, says in bad.items():
        assert any(line.startswith(f"{path}: ") and says in line for line in lines), path
    last = err.splitlines()[-1]
    assert last.startswith("error: found 5 of 48 images bad") and "--on-bad skip" in last
    assert names_in(tmp_path / "packed") == []


def test_bad_images_are_left_out_on_demand(tree, run, tmp_path):
    root, truth = tree
    bad = spoil(root)
    code, _, err = run("--source", root, "--on-bad", "skip")
    packed = tmp_path / "packed"
    assert code == 0, err
    listed = dict(line.split("\t") for line in (packed / "bad-images.txt").read_text().splitlines())
    assert listed.keys() == bad.keys()
    manifest = verify_all(packed)
    assert [manifest.count(s) for s in ("train", "val", "test")] == [22, 10, 11]
    assert [manifest.splits[s]["skipped"] for s in ("train", "val", "test")] == [2, 2, 1]
    for split in ("train", "val", "test"):
        images, labels, files = arrays(packed, split)
        assert len(images) == len(files) == manifest.count(split) and not set(files) & bad.keys()
        for row, path in enumerate(files):
            np.testing.assert_array_equal(images[row], read_image(root / path))
            assert truth[path] is None or manifest.classes[labels[row]].wnid == truth[path]
    write_tree(root)  # mended: the list goes, too
    assert run("--source", root, "--on-bad", "skip")[0] == 0
    assert "bad-images.txt" not in names_in(packed) and load_manifest(packed).count("train") == 24


def test_skipping_must_leave_every_class_something(tree, run, tmp_path):
    for path in (tree[0] / f"train/{wnid(2)}").rglob("*.JPEG"):
        path.write_bytes(b"")
    code, _, err = run("--source", tree[0], "--on-bad", "skip")
    assert code == 3 and "a class of train would be empty" in err
    assert names_in(tmp_path / "packed") == []


def test_the_odd_one_is_named_even_if_it_comes_first(tree, run):
    write_image(tree[0] / f"train/{wnid(0)}/images/{wnid(0)}_0.JPEG", picture(32, 0))
    code, _, err = run("--source", tree[0])
    assert code == 3
    assert f"train/{wnid(0)}/images/{wnid(0)}_0.JPEG: found 32x32 pixels, expected 16x16" in err
    assert "found 1 of 48 images bad" in err


@pytest.mark.parametrize(("width", "height", "expected"), [(24, 16, 3), (12, 12, 2), (8, 8, 0), (24, 24, 0)])
def test_sides(tmp_path, run, width, height, expected):
    truth = write_tree(tmp_path / "tiny", classes=2, train=2, val=1, test=1, oddities=False)
    for path in truth:
        write_image(tmp_path / "tiny" / path, picture(max(width, height), 3)[:height, :width])
    code, _, err = run("--source", tmp_path / "tiny")
    assert code == expected, err
    if expected:
        assert f"{width}x{height} pixels, expected" in err.splitlines()[-1] and names_in(tmp_path / "packed") == []


def test_a_dying_worker_is_an_error_not_a_hang():
    stream = decode_pool.decode_in_workers(DyingReader(), [["x"], ["y"], ["z"]], 16, 2)
    with pytest.raises(Exception, match="a decoding process ended with code 9"):
        next(stream)


# ---- annotations and folders at fault (9)


def annotations(root):
    return (root / "val/val_annotations.txt").read_text().splitlines()


BOX = "0\t0\t15\t15"
FAULTY_LINES = {
    "missing": (lambda lines: lines[:6] + lines[7:], "no line for val/images/val_6.JPEG, expected it at line 7"),
    "twice": (lambda lines: [*lines, lines[2]], "line 13 labels val_2.JPEG again after line 3"),
    "unknown class": (
        lambda lines: [*lines[:4], f"val_4.JPEG\tn00000000\t{BOX}", *lines[5:]], "line 5 names class n00000000"
    ),
    "no such image": (lambda lines: [*lines, f"val_99.JPEG\t{wnid(0)}\t{BOX}"], "line 13 names val_99.JPEG"),
    "no class": (lambda lines: [*lines[:8], "val_8.JPEG", *lines[9:]], "line 9 reads 'val_8.JPEG'"),
    "all gone": (lambda lines: [], "no line for val/images/val_"),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FAULTY_LINES)
def test_faulty_annotations(tree, run, tmp_path, name, newline):
    change, says = FAULTY_LINES[name]
    lines = change(annotations(tree[0]))
    (tree[0] / "val/val_annotations.txt").write_bytes(newline.join([*lines, ""]).encode())
    code, _, err = run("--source", tree[0])
    assert code == 3 and says in err, err
    assert names_in(tmp_path / "packed") == []


def remove_annotations(root):
    (root / "val/val_annotations.txt").unlink()


def copy_into_class_folders(root):
    """What scripts do that copy where they should move: every image is there twice."""
    for line in annotations(root):
        name, owner = line.split("\t")[:2]
        (root / f"val/{owner}").mkdir(exist_ok=True)
        shutil.copy(root / f"val/images/{name}", root / f"val/{owner}/{name}")


def contradict(root):
    """A class folder that disagrees with the annotation."""
    path = root / "val/images/val_0.JPEG"
    owner = annotations(root)[0].split("\t")[1]
    other = wnid(0) if owner != wnid(0) else wnid(1)
    (root / f"val/{other}").mkdir()
    path.rename(root / f"val/{other}/val_0.JPEG")


FAULTY_TREES = {
    "val unlabelled": (remove_annotations, "lies in no class folder and val/val_annotations.txt is not there"),
    "folder against annotation": (contradict, "expected the two to agree"),
    "copied, not moved": (copy_into_class_folders, "expected one image for val/val_annotations.txt line"),
    "no val": (lambda root: shutil.rmtree(root / "val"), "no image in val/"),
    "no train": (lambda root: shutil.rmtree(root / "train"), "no train/ folder"),
    "no wnids": (lambda root: (root / "wnids.txt").unlink(), "wnids.txt not found"),
    "empty wnids": (lambda root: (root / "wnids.txt").write_text("\n"), "wnids.txt is empty"),
    "class listed twice": (lambda root: (root / "wnids.txt").write_text(f"{wnid(0)}\n" * 2), "line 2 repeats"),
    "class not listed": (
        lambda root: (root / "wnids.txt").write_text(f"{wnid(0)}\n"), "in no folder of a class that wnids.txt lists"
    ),
    "class without images": (lambda root: shutil.rmtree(root / f"train/{wnid(2)}"), "no train image of 1 of the 4"),
    "a name with a line break": (
        lambda root: (root / "test/images/test_0.JPEG").rename(root / "test/images/a\nb.JPEG"), "not printable"
    ),
    "two data sets": (
        lambda root: (shutil.copytree(root, root / "a"), shutil.copytree(root / "a", root / "b"),
                      shutil.rmtree(root / "train")), "several data sets (a, b)"
    ),
}


@pytest.mark.parametrize("name", FAULTY_TREES)
def test_faulty_trees(tree, run, tmp_path, name):
    change, says = FAULTY_TREES[name]
    change(tree[0])
    code, _, err = run("--source", tree[0])
    assert code == 3 and says in err, err
    assert str(tree[0]) in err and names_in(tmp_path / "packed") == []


# ---- zips at fault (1 to 4)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_zip(tree, run, tmp_path, share):
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    code, _, err = run("--source", archive)
    assert code == 3
    md5 = subprocess.run(["md5sum", archive], capture_output=True, text=True).stdout.split()[0]
    for says in (f"found {archive.stat().st_size:,} bytes", md5, "248,100,043", "90528d7ca1a48142e341f4ef8d21d0de"):
        assert says in err
    assert names_in(tmp_path) == ["tiny", "tiny.zip"]


def test_flipped_bytes_in_a_zip(tree, run, tmp_path):
    """One flipped byte anywhere: refused, or (in a time stamp, say) without any effect on what is packed."""
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    data = archive.read_bytes()
    assert run("--source", archive)[0] == 0
    expected = load_manifest(tmp_path / "packed").data_digest
    with zipfile.ZipFile(archive) as file:
        inside = [m.header_offset + 30 + len(m.filename) + 5 for m in file.infolist() if m.compress_size > 10]
    rng = np.random.default_rng(0)
    anywhere = rng.integers(0, len(data), 40).tolist()
    for position in [*inside[::4], *anywhere]:
        archive.write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        shutil.rmtree(tmp_path / "again", ignore_errors=True)
        code, _, err = run("--source", archive, out=tmp_path / "again")
        if position in inside or code:
            assert (code, names_in(tmp_path / "again")) == (3, []), (position, err)
        else:
            assert load_manifest(tmp_path / "again").data_digest == expected, position


def test_damage_is_seen_by_workers_too(tree, run, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_pool, "CHUNK_BYTES", 4 * 16 * 16 * 3)
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo("tiny-imagenet-200/test/images/test_7.JPEG")
    data = bytearray(archive.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    archive.write_bytes(data)
    code, _, err = run("--source", archive, "--workers", 2, "--on-bad", "skip")
    assert code == 3 and "test_7.JPEG is damaged" in err and "expected 248,100,043" in err
    assert names_in(tmp_path / "packed") == []


def test_html_saved_as_zip(run, tmp_path):
    (tmp_path / "tiny.zip").write_text("\n<!DOCTYPE html><html>Please log in</html>")
    code, _, err = run("--source", tmp_path / "tiny.zip")
    assert code == 3 and "found an HTML page" in err and "the download failed" in err


@pytest.mark.parametrize("name", ["../../evil.txt", "/tmp/evil-fastres.txt", "tiny/train/../../x", "..\\x", "C:\\x"])
def test_members_that_point_outside(tree, run, tmp_path, name):
    archive = zip_tree(tree[0], tmp_path / "below" / "tiny.zip") if (tmp_path / "below").mkdir() is None else None
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"evil")
    code, _, err = run("--source", archive, out=tmp_path / "below" / "packed")
    assert code == 3 and "points outside" in err and name.replace("\\", "\\\\") in err
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/evil-fastres.txt").exists()


def test_zip_that_lies_about_a_size(tree, run, tmp_path):
    """A member that inflates to more than its directory entry says is cut at the promise, and refused."""
    archive = zip_tree(tree[0], tmp_path / "tiny.zip")
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        member = file.getinfo("tiny-imagenet-200/words.txt")
        start = data.index(b"tiny-imagenet-200/words.txt", file.start_dir) - 46
    data[start + 24] ^= 1  # the directory's uncompressed size
    data[member.header_offset + 22] ^= 1  # and the header's, so that they agree
    archive.write_bytes(data)
    code, _, err = run("--source", archive)
    assert code == 3 and "words.txt is damaged" in err


# ---- again, together, and killed (11, 12)


def test_up_to_date_unless_something_changed(tree, run, tmp_path):
    root, packed = tree[0], tmp_path / "packed"
    image = root / f"train/{wnid(1)}/images/{wnid(1)}_2.JPEG"

    def status(*arguments, source=root):
        code, out, err = run("--source", source, "--json", *arguments)
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


def test_a_failed_run_leaves_the_old_packing(tree, run, tmp_path):
    assert run("--source", tree[0])[0] == 0
    before = verify_all(tmp_path / "packed")
    spoil(tree[0])
    assert run("--source", tree[0])[0] == 3
    assert verify_all(tmp_path / "packed") == before


def test_a_source_removed_after_packing_is_not_downloaded_again(tree, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    tree[0].rename("tiny-imagenet-200")
    assert run()[0] == 0
    shutil.rmtree("tiny-imagenet-200")
    code, out, _ = run()
    assert code == 0 and "up to date" in out


def test_two_packers_in_one_folder(tree, run, tmp_path):
    with Staging(tmp_path / "packed"):
        done = subprocess.run(
            [*COMMAND, "--source", tree[0], "--out", tmp_path / "packed"], capture_output=True, text=True
        )
    assert done.returncode == 2 and f"process {os.getpid()}" in done.stderr
    assert run("--source", tree[0])[0] == 0


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


def test_sigkill_in_the_middle(tmp_path, run):
    large_tree(tmp_path / "tiny")
    packed, mark = tmp_path / "packed", uuid.uuid4().hex
    with packing(tmp_path / "tiny", packed, mark) as process:
        images = packed / ".packing" / "train.images.npy"
        assert wait_for(lambda: images.exists() and images.stat().st_size > 2**20)
        assert len(carriers(mark)) == 3
        process.kill()
    assert wait_for(lambda: not carriers(mark)), "orphans"
    assert set(names_in(packed)) == {".pack.lock", ".packing"}
    code, _, err = run("--source", tmp_path / "tiny", "--workers", 1)
    assert code == 0, err
    assert not {".pack.lock", ".packing"} & set(names_in(packed))
    assert run("--source", tmp_path / "tiny", out=tmp_path / "again")[0] == 0
    assert verify_all(packed).data_digest == verify_all(tmp_path / "again").data_digest


@pytest.mark.slow
def test_sigkill_at_any_moment(tmp_path, run):
    large_tree(tmp_path / "tiny")
    assert run("--source", tmp_path / "tiny", out=tmp_path / "reference")[0] == 0
    reference = load_manifest(tmp_path / "reference")
    expected = {name: entry["sha256"] for name, entry in reference.files.items()}
    packed = tmp_path / "packed"
    start = time.monotonic()
    with packing(tmp_path / "tiny", packed, "none") as process:
        process.communicate()
    whole = time.monotonic() - start
    killed = 0
    for i, delay in enumerate(np.random.default_rng(0).uniform(0.05, whole, 20)):
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
    assert killed >= 10


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


def test_too_little_space_is_said_first(tree, run, tmp_path, monkeypatch):
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 777, 777))
    code, _, err = run("--source", tree[0])
    assert code == 4 and "found 777 bytes free, expected the" in err and "needed" in err
    assert names_in(tmp_path / "packed") == []


def test_disk_that_fills_while_writing(tree, tmp_path):
    """A real small disk, in a mount namespace of its own, and a check of free space that is fooled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    write_tree(tmp_path / "big", classes=4, side=64, train=60, val=3)
    program = (
        "import sys; from fastres.errors import run_command; from preprocess import pack; from preprocess.staging "
        "import Staging; Staging.require_space = lambda *_: None; sys.exit(run_command(pack.main))"
    )
    script = (
        f"mount -t tmpfs -o size=2m none {disk} || exit 99; "
        f"{sys.executable} -c '{program}' --source {tmp_path / 'big'} --out {disk / 'packed'}; code=$?; "
        f"ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    if done.returncode in (1, 99) and "packed" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    assert "the disk is full, found" in done.stderr and "needed" in done.stderr and "Traceback" not in done.stderr


# ---- the command line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--source", "nowhere"], "found nothing there"),
        (["--engines", "resident,tape"], "found 'tape', expected some of"),
        (["--workers", "0"], "expected a whole number"),
        (["--workers", "two"], "expected a whole number"),
        (["--source", ".", "--small-world"], "not allowed with"),
        (["--small-world", "both"], "invalid choice"),
    ],
)
def test_usage(tmp_path, arguments, says):
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr
    assert names_in(tmp_path) == []


def test_without_a_network(tmp_path):
    closed = os.environ | dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9") | {"no_proxy": ""}
    done = subprocess.run(COMMAND, cwd=tmp_path, env=closed, capture_output=True, text=True)
    assert done.returncode == 4 and "Traceback" not in done.stderr
    for says in ("tiny-imagenet-200.zip", "248,100,043", "90528d7ca1a48142e341f4ef8d21d0de", "--small-world"):
        assert says in done.stderr
    assert names_in(tmp_path) == []


def test_out_is_a_file(tree, run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "packed"):
        code, _, err = run("--source", tree[0], out=out)
        assert code == 2 and "expected a folder" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_small_world_is_rendered_once(run, tmp_path, monkeypatch):
    from fastres import small_world

    rendered = []

    def render(tree, seed, progress):
        rendered.append(seed)
        write_tree(tree, side=32)
        progress(48, 48)

    monkeypatch.setattr(small_world, "render_target", render)
    monkeypatch.setattr(small_world, "render_source", None)
    for status in ("packed", "up to date"):
        code, out, err = run("--small-world", "--json")
        assert (code, json.loads(out)["status"]) == (0, status), err
    assert rendered == [0]
    manifest = verify_all(tmp_path / "packed")
    assert manifest.source == {"kind": "small-world", "name": "tree", "part": "target", "seed": 0}
    assert (manifest.side, manifest.count("train")) == (32, 24)


@pytest.mark.slow
def test_the_real_small_world(run, tmp_path):
    for status in ("packed", "up to date"):
        code, out, err = run("--small-world", "--json")
        assert (code, json.loads(out)["status"]) == (0, status), err
    manifest = verify_all(tmp_path / "packed")
    assert (manifest.side, manifest.num_classes) == (32, 20)
    assert [manifest.count(s) for s in ("train", "val")] == [4000, 1000]
    assert manifest.splits["train"]["grayscale"] > 0
