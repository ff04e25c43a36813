"""What people's own folders and archives did: each of these was packed wrongly, or ended without a sentence."""

import os
import shutil
import zipfile

import pytest

from fastres.data.manifest import load_manifest
from preprocess.sources.records import natural
from tests.support.trees import picture, write_image


def photos(root, *folders, count=4, size=40, ending="jpg"):
    for number, folder in enumerate(folders):
        for k in range(count):
            write_image(root / folder / f"{k}.{ending}", picture(size, 10 * number + k))
    return root


def whole(root, *classes):
    """train/ and val/ of the classes."""
    return photos(photos(root, *(f"train/{c}" for c in classes)), *(f"val/{c}" for c in classes), count=2)


def classes_of(packer):
    return [info.wnid for info in load_manifest(packer.out).classes]


class Encoded(zipfile.ZipInfo):
    """A member whose name is in Shift-JIS and says nothing of it, as Windows in Japan makes them."""

    def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's
        return self.filename.encode("cp932"), self.flag_bits & ~0x800


@pytest.mark.parametrize("names", [("表面", "表裏", "猫"), ("AC\\DC", "AC\\AC", "pop")], ids=["cp932", "unix"])
def test_a_backslash_is_a_separator_in_zips_of_windows_alone(packer, tmp_path, names):
    tree = whole(tmp_path / "t", *names)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(p for p in tree.rglob("*") if p.is_file()):
            kind = Encoded if names[2] == "猫" else zipfile.ZipInfo
            info = kind("x")
            info.filename = str(path.relative_to(tree))
            archive.writestr(info, path.read_bytes())
    code, _, err = packer("--source", tmp_path / "z.zip", "--side", 32)
    assert code == 0, err
    assert len(classes_of(packer)) == 3, "and not two, one of them with the other's images"
    assert load_manifest(packer.out).splits["train"]["per_class"] == [4, 4, 4]


def test_labels_beside_one_that_is_called_train_and_has_folders(packer, tmp_path):
    tree = photos(tmp_path / "a", "bus", "car", "train/steam", "train/diesel")
    code, _, err = packer("--source", tree, "--val-fraction", "0.25", "--side", 32)
    assert code == 3 and "beside it folders of images alone (bus/, car/)" in err
    assert packer("--source", tree / "train", "--val-fraction", "0.25", "--side", 32)[0] == 0


def test_folders_that_change_places_are_other_data(packer, tmp_path):
    tree = photos(whole(tmp_path / "t", "cat", "dog"), "train/cat", "train/dog", ending="bmp", count=1)
    for path in tree.rglob("*.*"):
        os.utime(path, ns=(10**9, 10**9))
    for folder in ("train", "val"):  # equal names, sizes and times
        for path in (tree / folder).rglob("*.jpg"):
            path.unlink()
    photos(photos(tree, "train/cat", "train/dog", ending="bmp"), "val/cat", "val/dog", ending="bmp", count=2)
    for path in tree.rglob("*.bmp"):
        os.utime(path, ns=(10**9, 10**9))
    given = ("--source", tree, "--side", 32)
    assert packer(*given)[0] == 0
    before = load_manifest(packer.out).data_digest
    for folder in ("train", "val"):
        for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
            (tree / folder / old).rename(tree / folder / new)
    assert packer(*given)[0] == 0
    assert load_manifest(packer.out).data_digest != before, "not: up to date"


def test_images_of_a_table_that_change_places_are_other_data(packer, tmp_path):
    rows = ["file,label,split"]
    for number, label in enumerate(("cat", "dog")):
        for k in range(3):
            write_image(tmp_path / "t" / label / f"{k}.bmp", picture(32, 10 * number + k))
            os.utime(tmp_path / "t" / label / f"{k}.bmp", ns=(10**9, 10**9))
            rows.append(f"{label}/{k}.bmp,{label},{'val' if k == 2 else 'train'}")
    (tmp_path / "t/labels.csv").write_text("\n".join(rows) + "\n")
    assert packer("--source", tmp_path / "t/labels.csv", "--side", 32)[0] == 0
    before = load_manifest(packer.out).data_digest
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (tmp_path / "t" / old).rename(tmp_path / "t" / new)
    assert packer("--source", tmp_path / "t/labels.csv", "--side", 32)[0] == 0
    assert load_manifest(packer.out).data_digest != before


def test_a_link_goes_by_its_own_name(packer, tmp_path):
    whole(tmp_path / "there", "cat", "dog")
    (tmp_path / "pets").symlink_to(tmp_path / "there")
    assert packer("--source", tmp_path / "pets", "--side", 32)[0] == 0
    assert load_manifest(packer.out).source["name"] == "pets"


def test_what_is_left_out_with_an_empty_class_is_counted(packer, tmp_path):
    tree = whole(tmp_path / "a", "bird", "cat", "dog")
    shutil.copytree(tree / "val", tree / "test")
    for path in (tree / "train/bird").iterdir():
        path.unlink()
    code, _, err = packer("--source", tree, "--on-bad", "skip", "--side", 32)
    assert code == 0 and "left out with them: 2 images, such as val/bird/0.jpg" in err
    manifest = load_manifest(packer.out)
    assert classes_of(packer) == ["cat", "dog"] and manifest.splits["test"]["per_class"] == [2, 2], "still labelled"
    assert manifest.source["ignored"]["images of classes without a training image"]["count"] == 4


def test_classes_without_a_validation_image_are_a_usage_error(packer, tmp_path):
    tree = whole(tmp_path / "a", "a", "b", "c", "d")
    for label in "cd":
        shutil.rmtree(tree / "val" / label)
    code, _, err = packer("--source", tree, "--classes", "2:", "--side", 32)
    assert code == 2 and "takes no val image" in err


def test_a_name_of_five_thousand_digits_can_be_sorted():
    assert natural("2") < natural("10") < natural("9" * 5000) and natural("a" + "9" * 5000)


def test_out_inside_what_is_read_is_a_usage_error(packer, tmp_path, monkeypatch):
    tree = photos(tmp_path / "pets", "cat", "dog")
    monkeypatch.chdir(tree)
    given = ("--source", ".", "--val-fraction", "0.25", "--side", 32)
    code, _, err = packer(*given, out=tree / "packed")
    assert code == 2 and "lies in pets/, which is read" in err
    assert packer(*given)[0] == 0 and load_manifest(packer.out).source["name"] == "pets"


@pytest.mark.parametrize("ending", ["mp4", "jpg"])
def test_a_member_too_large_to_be_an_image(packer, tmp_path, monkeypatch, ending):
    for module in ("archive", "zip_tree"):
        monkeypatch.setattr(f"preprocess.sources.{module}.LARGEST_MEMBER", 20_000)
    tree = whole(tmp_path / "t", "cat", "dog")
    (tree / f"train/cat/film.{ending}").write_bytes(os.urandom(30_000))
    shutil.make_archive(tmp_path / "z", "zip", tree)
    code, _, err = packer("--source", tmp_path / "z.zip", "--side", 32)
    assert (code == 0) == (ending == "mp4"), err
    assert "damaged" not in err and (ending == "mp4" or "film.jpg has 30,000 bytes, expected 20,000 at most" in err)


def test_the_reason_why_no_first_image_can_be_read(packer, tmp_path):
    tree = whole(tmp_path / "t", "cat", "dog")
    for path in (tree / "train").rglob("*.jpg"):
        path.write_bytes(b"no image")
    code, _, err = packer("--source", tree)
    assert code == 3 and "mend what is said of the first, train/cat/0.jpg: " in err and "anew" not in err


def test_broken_images_at_the_beginning_are_no_reason_to_stop(packer, tmp_path):
    tree = whole(tmp_path / "t", "cat", "dog")
    for k in range(15):
        (tree / f"train/cat/000{k:02}.jpg").write_bytes(b"no image")
    code, _, err = packer("--source", tree, "--on-bad", "skip")
    assert code == 0, err
    assert load_manifest(packer.out).side == 40


@pytest.mark.parametrize("written", ["utf-16", "cr", "named"])
def test_lists_of_classes_as_other_systems_write_them(packer, tmp_path, written):
    tree = whole(tmp_path / "t", "n01", "n02")
    text = {"utf-16": "n01\nn02\n", "cr": "n01\rn02\r", "named": "n01\tcat\nn02\tdog\n"}[written]
    (tree / "wnids.txt").write_bytes(text.encode("utf-16" if written == "utf-16" else "utf-8"))
    code, _, err = packer("--source", tree)
    assert code == 0, err
    assert classes_of(packer) == ["n01", "n02"]


@pytest.mark.parametrize("name", ["Pets 2024:", "C:"])
def test_a_colon_is_no_drive_but_behind_a_letter(packer, tmp_path, name):
    tree = whole(tmp_path / "t" / name, "cat", "dog").parent
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for path in sorted(p for p in tree.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(tree))
    code, _, err = packer("--source", tmp_path / "z.zip", "--side", 32)
    assert (code == 0) == (name != "C:") and ("do not trust" in err) == (name == "C:")
