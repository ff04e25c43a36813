"""preprocess/pack.py: images, annotations and folders at fault end in one sentence, exit code 3 and a clean folder.

The numbers are those of the project's list of faults.
"""

import shutil

import numpy as np
import pytest

from fastres.data import decode_pool
from fastres.data.decode import Recipe
from fastres.data.manifest import load_manifest
from tests.support.packing import arrays, names_in, spoil, verify_all
from tests.support.trees import DyingReader, picture, read_image, wnid, write_image, write_tree

# ---- images at fault (6, 7, 8)


@pytest.mark.fault(7)
@pytest.mark.fault(8)
def test_bad_images_are_all_listed(tree, packer, tmp_path):
    bad = spoil(tree[0])
    code, out, err = packer("--source", tree[0])
    lines = [line for line in err.splitlines() if line.startswith(("train/", "val/", "test/"))]
    assert (code, out, len(lines)) == (3, "", 5)
    for path, says in bad.items():
        assert any(line.startswith(f"{path}: ") and says in line for line in lines), path
    last = err.splitlines()[-1]
    assert last.startswith("error: found 5 of 48 images bad") and "--on-bad skip" in last
    assert names_in(tmp_path / "packed") == []


@pytest.mark.fault(7)
def test_bad_images_are_left_out_on_demand(tree, packer, tmp_path):
    root, truth = tree
    bad = spoil(root)
    code, _, err = packer("--source", root, "--on-bad", "skip")
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
    assert packer("--source", root, "--on-bad", "skip")[0] == 0
    assert "bad-images.txt" not in names_in(packed) and load_manifest(packed).count("train") == 24


def test_a_link_that_leads_nowhere_is_a_bad_image(tree, packer, tmp_path):
    (tree[0] / "test/images/test_2.JPEG").unlink()
    (tree[0] / "test/images/test_2.JPEG").symlink_to(tmp_path / "gone")
    code, _, err = packer("--source", tree[0])
    assert code == 3 and "test/images/test_2.JPEG: cannot be read (No such file or directory)" in err
    for status in ("packed", "up to date"):
        code, out, _ = packer("--source", tree[0], "--on-bad", "skip")
        assert code == 0 and status in out


def test_skipping_must_leave_every_class_something(tree, packer, tmp_path):
    for path in (tree[0] / f"train/{wnid(2)}").rglob("*.JPEG"):
        path.write_bytes(b"")
    code, _, err = packer("--source", tree[0], "--on-bad", "skip")
    assert code == 3 and "a class of train would be empty" in err
    assert names_in(tmp_path / "packed") == []


def test_the_odd_one_is_named_even_if_it_comes_first(tree, packer):
    write_image(tree[0] / f"train/{wnid(0)}/images/{wnid(0)}_0.JPEG", picture(32, 0))
    code, _, err = packer("--source", tree[0])
    assert code == 3
    assert f"train/{wnid(0)}/images/{wnid(0)}_0.JPEG: found 32x32 pixels, expected 16x16" in err
    assert "found 1 of 48 images bad" in err


@pytest.mark.fault(8)
@pytest.mark.parametrize(("width", "height", "expected"), [(24, 16, 3), (12, 12, 2), (8, 8, 0), (24, 24, 0)])
def test_sides(tmp_path, packer, width, height, expected):
    truth = write_tree(tmp_path / "tiny", classes=2, train=2, val=1, test=1, oddities=False)
    for path in truth:
        write_image(tmp_path / "tiny" / path, picture(max(width, height), 3)[:height, :width])
    code, _, err = packer("--source", tmp_path / "tiny")
    assert code == expected, err
    if expected:
        assert f"{width}x{height} pixels, expected" in err.splitlines()[-1] and names_in(tmp_path / "packed") == []


def test_a_dying_worker_is_an_error_not_a_hang():
    stream = decode_pool.decode_in_workers(DyingReader(), [["x"], ["y"], ["z"]], Recipe(16), 2)
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
        lambda lines: [*lines[:4], f"val_4.JPEG\tn00000000\t{BOX}", *lines[5:]],
        "line 5 names class n00000000",
    ),
    "no such image": (lambda lines: [*lines, f"val_99.JPEG\t{wnid(0)}\t{BOX}"], "line 13 names val_99.JPEG"),
    "no class": (lambda lines: [*lines[:8], "val_8.JPEG", *lines[9:]], "line 9 reads 'val_8.JPEG'"),
    "all gone": (lambda lines: [], "no line for val/images/val_"),
}


@pytest.mark.fault(9)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", FAULTY_LINES)
def test_faulty_annotations(tree, packer, tmp_path, name, newline):
    change, says = FAULTY_LINES[name]
    lines = change(annotations(tree[0]))
    (tree[0] / "val/val_annotations.txt").write_bytes(newline.join([*lines, ""]).encode())
    code, _, err = packer("--source", tree[0])
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
        lambda root: (root / "wnids.txt").write_text(f"{wnid(0)}\n"),
        "in no folder of a class that wnids.txt lists",
    ),
    "one class": (
        lambda root: (
            (root / "wnids.txt").write_text(wnid(0)),
            [shutil.rmtree(root / f"train/{wnid(k)}") for k in (1, 2, 3)],
            shutil.rmtree(root / "val"),
            write_image(root / f"val/{wnid(0)}/x.JPEG", picture(16, 1)),
        ),
        f"wnids.txt lists one class only ({wnid(0)})",
    ),
    "class without images": (lambda root: shutil.rmtree(root / f"train/{wnid(2)}"), "no train image of 1 of the 4"),
    "a name with a line break": (
        lambda root: (root / "test/images/test_0.JPEG").rename(root / "test/images/a\nb.JPEG"),
        "has a line break",
    ),
    "two data sets": (
        lambda root: (
            shutil.copytree(root, root / "a"),
            shutil.copytree(root / "a", root / "b"),
            shutil.rmtree(root / "train"),
        ),
        "several data sets (a, b)",
    ),
}


@pytest.mark.parametrize("name", FAULTY_TREES)
def test_faulty_trees(tree, packer, tmp_path, name):
    change, says = FAULTY_TREES[name]
    change(tree[0])
    code, _, err = packer("--source", tree[0])
    assert code == 3 and says in err, err
    assert str(tree[0]) in err and names_in(tmp_path / "packed") == []
