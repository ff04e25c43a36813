"""Any train/<label>/, val/<label>/ tree, images of any size brought to one; and what a packing counts and re-checks."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fastres.data import decode, fast_decode
from fastres.data.decode import Recipe
from fastres.data.manifest import check_sample, load_manifest
from fastres.machine.errors import DataError
from tests.support.packing import arrays, names_in, verify_all
from tests.support.trees import picture, read_image, write_image

LABELS = ("cat", "dog 10", "dog 9")


@pytest.fixture
def tree(tmp_path):
    """3 classes x (4 + 2) images of many sizes, at any depth; 2 unlabelled."""
    root, sizes = tmp_path / "pets", enumerate([(64, 48), (40, 56), (24, 24), (16, 16), (12, 20), (33, 31)] * 4)
    for label in LABELS:
        for split, count in (("train", 4), ("val", 2)):
            for i in range(count):
                seed, (width, height) = next(sizes)
                below = "deep/er/" if i == 1 else ""
                pixels = np.asarray(Image.fromarray(picture(64, seed)).resize((width, height)))
                write_image(root / f"{split}/{label}/{below}{split} {i}.jpg", pixels)
    for i in range(2):
        write_image(root / f"test/{i}.png", picture(32, i), "PNG")
    return root


def test_a_folder_of_any_sizes_is_packed_by_label(tree, packer, tmp_path):
    code, out, err = packer("--source", tree, "--side", 16)
    assert code == 0, err
    manifest = verify_all(tmp_path / "packed")
    assert [(c.wnid, c.name) for c in manifest.classes] == [(label, label) for label in LABELS]
    for split, count in (("train", 12), ("val", 6)):
        images, labels, files = arrays(tmp_path / "packed", split)
        assert images.shape == (count, 16, 16, 3) and len(files) == count
        assert [manifest.classes[k].wnid for k in labels] == [path.split("/")[1] for path in files]
        for row, path in enumerate(files):
            assert np.abs(images[row] - area_mean(read_image(tree / path), 16)).max() <= 1.0, path
    assert arrays(tmp_path / "packed", "test")[2] == ["test/0.png", "test/1.png"]
    assert manifest.splits["train"]["converted"] == {"resized": 9} and "resized" in out


def area_mean(image, side):
    """f64 [side, side, 3]: the centre square, each pixel the mean over exactly the area that it covers.

    Enlarging is bicubic, so there Pillow is believed.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    top, left = (height - short) / 2, (width - short) / 2
    if short < side:
        box = (left, top, left + short, top + short)
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box)).astype(float)

    def weights(offset, length):
        edges = offset + np.arange(side + 1) * short / side
        low, high = np.maximum(edges[:-1, None], np.arange(length)), np.minimum(edges[1:, None], np.arange(length) + 1)
        return np.clip(high - low, 0, None) * side / short

    return np.einsum("ih,hwc,jw->ijc", weights(top, height), image.astype(float), weights(left, width))


def test_shrinking_is_the_area_mean():
    image = picture(64, 7)
    fitted = np.asarray(decode.fit(Image.fromarray(image), 16))
    assert np.abs(fitted - image.reshape(16, 4, 16, 4, 3).mean((1, 3))).max() <= 0.5


def test_without_side_images_must_agree(tree, packer, tmp_path):
    code, _, err = packer("--source", tree)
    assert code == 3 and "expected squares" in err and "--side S" in err and names_in(tmp_path / "packed") == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda root: shutil.rmtree(root / "val"), "no image in val/"),
        (lambda root: (root / "val/cat").rename(root / "val/cow"), "whose folder is no class of train/"),
        (lambda root: write_image(root / "train/x.jpg", picture(16, 0)), "train/x.jpg, which lies in no class folder"),
    ],
)
def test_faulty_folders(tree, packer, change, says):
    change(tree)
    code, _, err = packer("--source", tree, "--side", 16)
    assert code == 3 and says in err and "train/<label>/" in err


@pytest.mark.parametrize("text", ["20", "0", "2048", "x"])
def test_sides_that_cannot_be(tree, packer, text):
    with pytest.raises(SystemExit) as stop:
        packer("--source", tree, "--side", text)
    assert stop.value.code == 2


def test_exact_duplicates_are_counted(tree, packer, tmp_path):
    write_image(tree / "train/cat/again.png", read_image(tree / "train/dog 9/train 0.jpg"), "PNG")  # the same pixels
    shutil.copy(tree / "train/cat/train 2.jpg", tree / "val/cat/leaked.jpg")
    shutil.copy(tree / "val/cat/val 0.jpg", tree / "val/cat/twice.jpg")  # within val: not counted
    code, out, err = packer("--source", tree, "--side", 16)
    assert code == 0, err
    splits = load_manifest(tmp_path / "packed").splits
    assert (splits["train"]["duplicates"], splits["val"]["duplicates"]) == (1, 1) and "duplicates: " in out


# ---- --check


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "first byte":
        content[0] ^= 1
    elif how == "truncated":
        del content[-1:]
    path.unlink() if how == "missing" else path.write_bytes(content)


@pytest.mark.fault(14)
@pytest.mark.parametrize("how", ["first byte", "truncated", "missing"])
@pytest.mark.parametrize("depth", ["fast", "full"])
def test_check_finds_what_changed(tree, packer, tmp_path, how, depth):
    assert packer("--source", tree, "--side", 16)[0] == 0
    code, out, _ = packer("--check", depth, "--json")
    assert code == 0 and json.loads(out)["status"] == "whole"
    for name in ("train.images.npy", "val.files.txt"):
        damage(tmp_path / "packed" / name, how)
    code, _, err = packer("--check", depth)
    assert code == 3 and "train.images.npy" in err and "val.files.txt" in err and "pack.py` again" in err


def test_only_the_full_check_reads_every_byte(tmp_path, packer, tree):
    """A large file's sample is 4 MB of it: one flipped bit between the pieces is for the full check."""
    assert packer("--source", tree, "--side", 1024)[0] == 0  # 37 MB
    path = tmp_path / "packed" / "train.images.npy"
    content = bytearray(path.read_bytes())
    content[(len(content) - (1 << 16)) // 63 + (1 << 16) + 5] ^= 1  # after the second piece
    path.write_bytes(content)
    check_sample(tmp_path / "packed", load_manifest(tmp_path / "packed"), "train.images.npy")
    assert packer("--check")[0] == 0 and packer("--check", "full")[0] == 3
    path.write_bytes(bytes(len(content)))
    with pytest.raises(DataError, match="content has changed"):
        check_sample(tmp_path / "packed", load_manifest(tmp_path / "packed"), "train.images.npy")


# ---- the fast way through OpenCV


def test_plain_headers(tmp_path):
    for oddity, colours in (("", 3), ("L", 1), ("CMYK", None), ("PNG", None)):
        write_image(tmp_path / "x.jpg", picture(24, 0)[:16], oddity)
        header = fast_decode.plain_header((tmp_path / "x.jpg").read_bytes())
        assert header == (colours and fast_decode.Header(24, 16, colours))
    write_image(tmp_path / "x.jpg", picture(24, 0))
    data = (tmp_path / "x.jpg").read_bytes()
    several = data[:2] + b"\xff\xe2\0\x08MPF\0\0\0" + data[2:]
    broken = [several, data[:-1], data + b"\0", data[1:], data[:2] + data[-2:], b"", b"\xff\xd8\xff\xd9", data[:20]]
    for version in broken:
        assert fast_decode.plain_header(version) is None


@pytest.mark.fault(7)
def test_both_ways_give_the_same_pixels_and_complaints(tmp_path, monkeypatch, capfd):
    """Damage of every kind, in every position of a small JPEG: OpenCV never accepts what Pillow refuses."""
    if fast_decode.fast_decoder() is None:
        pytest.skip("OpenCV is not installed or not Pillow's equal here")
    write_image(tmp_path / "x.jpg", picture(16, 0))
    data = (tmp_path / "x.jpg").read_bytes()
    rng = np.random.default_rng(0)
    versions = [data, *(data[:n] + b"\xff\xd9" for n in range(2, len(data), 7))]
    for position in range(2, len(data)):
        for value in (int(rng.integers(256)), 0xFF):
            versions.append(data[:position] + bytes([value]) + data[position + 1 :])

    def outcome(version):
        try:
            pixels, kinds = decode.decode(version, Recipe(16))
            return pixels.tobytes(), kinds
        except decode.BadImage as bad:
            return str(bad)

    fast = [outcome(version) for version in versions]
    monkeypatch.setattr(decode, "fast_decoder", lambda: None)
    assert [i for i, version in enumerate(versions) if outcome(version) != fast[i]] == []
