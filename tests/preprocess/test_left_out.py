"""Nothing is left out without a word: what counts as an image, as a class, as a split, and what is said of the rest."""

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from fastres.data.manifest import load_manifest
from tests.support.packing import arrays, names_in
from tests.support.trees import picture, read_image, wnid, write_image

pytestmark = pytest.mark.fault(33)

LABELS = ("apple", "bread", "cup")


@pytest.fixture
def photos(tmp_path):
    """3 classes x (3 + 2) PNGs of 16 px."""
    for k, label in enumerate(LABELS):
        for split, count in (("train", 3), ("val", 2)):
            for i in range(count):
                write_image(tmp_path / f"photos/{split}/{label}/{i}.png", picture(16, 100 * k + 10 * i + count), "PNG")
    return tmp_path / "photos"


def rewrite(path, ending, kind, **options):
    with Image.open(path) as image:
        image.save(path.with_suffix(ending), kind, **options)
    path.unlink()


# ---- images by content


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "AVIF", "JPEG2000", "JPEG", "BMP"])
@pytest.mark.parametrize("ending", ["its own", ".dat", ""])
def test_a_class_of_another_format_is_a_class(photos, packer, tmp_path, kind, ending):
    own = {"WEBP": ".webp", "TIFF": ".TIF", "AVIF": ".avif", "JPEG2000": ".jp2", "JPEG": ".jfif", "BMP": ".dib"}[kind]
    for split in ("train", "val"):
        for path in sorted((photos / split / "bread").iterdir()):
            rewrite(path, own if ending == "its own" else ending, kind)
    code, out, err = packer("--source", photos)
    assert code == 0, err
    manifest = load_manifest(tmp_path / "packed")
    assert [c.wnid for c in manifest.classes] == list(LABELS)
    assert (manifest.splits["train"]["per_class"], manifest.splits["val"]["per_class"]) == ([3] * 3, [2] * 3)
    assert manifest.splits["train"]["converted"].get(kind, 3) == 3
    images, _, files = arrays(tmp_path / "packed", "train")
    for row, path in enumerate(files):
        np.testing.assert_array_equal(images[row], read_image(photos / path), err_msg=path)
    assert "images per class of train: 3" in out and "ignored" not in out


def test_a_photo_that_needs_a_library_is_listed(photos, packer):
    (photos / "train/cup/phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (photos / "train/cup/new").write_bytes(b"\xff\x0a" + bytes(100))  # JPEG XL, by its content
    code, _, err = packer("--source", photos)
    assert code == 3 and "phone.heic" in err and "train/cup/new" in err and "found 2 of 17 images bad" in err


def test_whatever_is_no_image_is_counted(photos, packer, tmp_path):
    (photos / "train/cup/notes.txt").write_text("BMX and P5")
    (photos / "val/cup/notes.TXT").write_text("II")
    (photos / "train/cup/film.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(50))
    (photos / "train/cup/raw.NEF").write_bytes(b"II*\0" + bytes(50))
    (photos / "train/cup/README").write_text("read me")
    (photos / "train/cup/.secret.png").write_bytes(b"x")
    for litter in (".DS_Store", "._0.png", "Thumbs.db"):
        (photos / "train/cup" / litter).write_bytes(b"x")
    (photos / "extra").mkdir()
    os.mkfifo(photos / "train/cup/pipe")
    code, out, err = packer("--source", photos)
    assert code == 0, err
    ignored = load_manifest(tmp_path / "packed").source["ignored"]
    counts = {".txt": 2, ".mp4": 1, ".nef": 1, "no ending": 2, "hidden": 1}
    assert {kind: entry["count"] for kind, entry in ignored.items()} == counts
    assert ignored[".mp4"]["example"] == "train/cup/film.mp4"
    assert ".txt 2 (first train/cup/notes.txt)" in out and "not read: extra/" in out
    assert packer("--source", photos)[1].count(".txt 2 (") == 1  # up to date, and still said
    assert json.loads(packer("--source", photos, "--json")[1])["source"]["ignored"] == ignored


def test_a_pipe_named_like_an_image_does_not_hang(photos, packer):
    os.mkfifo(photos / "train/cup/pipe.png")
    code, _, err = packer("--source", photos)
    assert code == 3 and "train/cup/pipe.png: cannot be read (it is no regular file)" in err


# ---- classes


@pytest.mark.parametrize("inside", [(), ("a.txt", "b.mp4")])
def test_an_empty_class_folder_is_named(photos, packer, tmp_path, inside):
    for path in (photos / "train/bread").iterdir():
        path.unlink()
    for name in inside:
        (photos / "train/bread" / name).write_text("nothing to see")
    code, _, err = packer("--source", photos)
    assert code == 3 and "no image in 1 of the 3 class folders (train/bread)" in err and "--on-bad skip" in err
    code, out, err = packer("--source", photos, "--on-bad", "skip")
    assert (
        code == 0 and "(train/bread): left out" in err and "class folders without an image 1 (first train/bread)" in out
    )
    manifest = load_manifest(tmp_path / "packed")
    assert [c.wnid for c in manifest.classes] == ["apple", "cup"] and manifest.splits["val"]["per_class"] == [2, 2]


def test_a_class_without_validation_images_is_said(photos, packer, tmp_path):
    shutil.rmtree(photos / "val/bread")
    (photos / "train/cup/2.png").unlink()
    code, out, err = packer("--source", photos)
    assert code == 0, err
    assert "no validation image of 1 of the 3 classes: bread" in out
    assert "images per class of train: 2 (cup) to 3 (apple)" in out
    assert load_manifest(tmp_path / "packed").splits["val"]["per_class"] == [2, 0, 2]


def test_one_class_is_refused_and_its_folders_named(photos, packer, tmp_path):
    for split in ("train", "val"):
        (photos / split).rename(tmp_path / split)
        (photos / split).mkdir()
        (tmp_path / split).rename(photos / split / "images")
    code, _, err = packer("--source", photos)
    assert code == 3 and "one class only (train/images, with the folders apple, bread, cup inside it)" in err
    assert names_in(tmp_path / "packed") == []


def test_a_class_whose_images_are_all_bad_is_named(photos, packer):
    for path in (photos / "train/bread").iterdir():
        path.write_bytes(b"")
    code, _, err = packer("--source", photos, "--on-bad", "skip")
    assert code == 3 and "would be empty (train/bread)" in err


# ---- splits


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Train", "Validation", "Testing"), ("training", "val", "testing")]
)
def test_other_names_of_splits(photos, packer, tmp_path, names):
    write_image(photos / "test/0.png", picture(16, 9), "PNG")
    assert packer("--source", photos)[0] == 0
    for split, name in zip(("train", "val", "test"), names):
        (photos / split).rename(photos / name)
    code, _, err = packer("--source", photos, out=tmp_path / "again")
    assert code == 0, err
    one, two = load_manifest(tmp_path / "packed"), load_manifest(tmp_path / "again")
    assert one.content_digest == two.content_digest and "test" in two.splits
    assert arrays(tmp_path / "again", "val")[2][0].startswith(f"{names[1]}/apple/")


def test_the_other_names_in_the_layout_of_tiny_imagenet(tree, packer, tmp_path):
    assert packer("--source", tree[0])[0] == 0
    (tree[0] / "val").rename(tree[0] / "validation")
    code, _, err = packer("--source", tree[0], out=tmp_path / "again")
    assert code == 0, err
    digests = [load_manifest(tmp_path / out).content_digest for out in ("packed", "again")]
    assert digests[0] == digests[1]


def test_two_folders_for_one_split(photos, packer):
    shutil.copytree(photos / "val", photos / "validation")
    code, _, err = packer("--source", photos)
    assert code == 3 and "found val/ and validation/, expected one folder for val" in err


def test_a_missing_split_names_what_is_there(photos, packer):
    (photos / "val").rename(photos / "holdout")
    code, _, err = packer("--source", photos)
    assert code == 3 and "no image in val/ (the folders here: train/, holdout/)" in err


def test_a_folder_of_classes_alone_is_told_what_is_expected(photos, packer):
    code, _, err = packer("--source", photos / "train")
    assert code == 3 and "only apple/, bread/, cup/" in err and "expected train/<label>/ and val/<label>/" in err


# ---- names


def test_names_are_compared_as_they_look(photos, packer, tmp_path):
    composed, apart = (unicodedata.normalize(form, "crème") for form in ("NFC", "NFD"))
    (photos / "train/apple").rename(photos / "train" / composed)
    (photos / "val/apple").rename(photos / "val" / apart)
    code, _, err = packer("--source", photos)
    assert code == 0, err
    assert composed in [c.wnid for c in load_manifest(tmp_path / "packed").classes]
    (photos / "train/cup").rename(photos / "train" / apart)
    code, _, err = packer("--source", photos)
    assert code == 3 and r"'cr\xe8me'" in err and r"'cre\u0300me'" in err and "look the same" in err


def test_a_screenshot_of_macos_has_a_name(photos, packer, tmp_path):
    name = "train/apple/Screenshot 9.41\u202fAM\u00a0\u200b.png"
    write_image(photos / name, picture(16, 77), "PNG")
    code, _, err = packer("--source", photos)
    assert code == 0 and name in arrays(tmp_path / "packed", "train")[2], err


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\rb.png", "a\u2028b.png".encode(), b"a\xff.png"])
def test_names_that_no_line_can_hold(photos, packer, name):
    shutil.copy(photos / "train/apple/0.png", os.fsencode(photos / "train/apple") + b"/" + name)
    code, _, err = packer("--source", photos)
    assert code == 3 and "expected one line of text; rename the file" in err


# ---- links


def test_a_loop_of_links_is_followed_once(photos, packer, tmp_path):
    assert packer("--source", photos)[0] == 0
    (photos / "train/apple/around").symlink_to("..", target_is_directory=True)
    (photos / "train/apple/self").symlink_to(".", target_is_directory=True)
    code, out, err = packer("--source", photos, out=tmp_path / "again")
    assert code == 0, err
    assert "links to a folder around them 2 (first train/apple/" in out
    digests = [load_manifest(tmp_path / out).data_digest for out in ("packed", "again")]
    assert digests[0] == digests[1]


def test_linked_classes_are_classes(photos, packer, tmp_path):
    (photos / "train/cup").rename(tmp_path / "elsewhere")
    (photos / "train/cup").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert packer("--source", photos)[0] == 0
    assert load_manifest(tmp_path / "packed").splits["train"]["per_class"] == [3, 3, 3]


def test_wnids_with_other_files(tree, packer, tmp_path):
    """In the layout of Tiny ImageNet, too: a box file is counted, the annotations that are read are not."""
    rewrite(tree[0] / f"train/{wnid(1)}/images/{wnid(1)}_3.JPEG", ".webp", "WEBP")
    assert packer("--source", tree[0])[0] == 0
    manifest = load_manifest(tmp_path / "packed")
    assert manifest.source["ignored"] == {".txt": {"count": 4, "example": f"train/{wnid(0)}/{wnid(0)}_boxes.txt"}}
    assert manifest.splits["train"]["converted"]["WEBP"] == 1 and manifest.count("train") == 24


def test_annotations_are_compared_as_they_look(tree, packer):
    composed, apart = (unicodedata.normalize(form, "é.JPEG") for form in ("NFC", "NFD"))
    listed = tree[0] / "val/val_annotations.txt"
    listed.write_text(listed.read_text().replace("val_0.JPEG", composed))
    (tree[0] / "val/images/val_0.JPEG").rename(tree[0] / "val/images" / apart)
    assert packer("--source", tree[0])[0] == 0
