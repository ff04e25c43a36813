"""Cases that a reviewer found of kinds that were thought closed: links, litter, names and facts of trees."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from fastres.data import convert
from fastres.data.manifest import load_manifest
from fastres.machine.errors import DataError
from tests.preprocess.test_left_out import photos  # noqa: F401 - a fixture


@pytest.mark.fault(33)
@pytest.mark.parametrize("place", ["train/loop", "val/loop", "loop"])
def test_a_link_to_itself_is_no_folder(photos, packer, place):  # noqa: F811
    (photos / place).symlink_to(photos / place)
    code, _, err = packer("--source", photos)
    assert code == 0, err


@pytest.mark.fault(33)
def test_an_image_that_is_a_link_to_itself_is_named(photos, packer):  # noqa: F811
    (photos / "train/apple/a.png").symlink_to(photos / "train/apple/b.png")
    (photos / "train/apple/b.png").symlink_to(photos / "train/apple/a.png")
    code, _, err = packer("--source", photos)
    assert code in (0, 3) and "check its permissions" not in err
    code, out, err = packer("--source", photos, "--on-bad", "skip")
    assert code == 0, err


@pytest.mark.fault(33)
def test_litter_of_macos_is_no_class(photos, packer, tmp_path):  # noqa: F811
    for place in ("train/__MACOSX/apple", "val/__MACOSX", "train/apple/__MACOSX"):
        (photos / place).mkdir(parents=True)
        (photos / place / "._a.png").write_bytes(b"\0" * 80)
    code, _, err = packer("--source", photos)
    assert code == 0, err
    assert load_manifest(tmp_path / "packed").num_classes == 3


def zipped(photos, archive, renamed: str):  # noqa: F811
    """The photos as a zip, with their last class renamed; returns the zip's path."""
    for split in ("train", "val"):
        (photos / split / "cup").rename(photos / split / renamed)
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(photos.rglob("*.png")):
            made.write(path, f"photos/{path.relative_to(photos)}")
    return archive


@pytest.mark.fault(33)
@pytest.mark.parametrize("flagged", [True, False])
def test_a_zips_names_are_utf_8_where_they_can_be(photos, packer, tmp_path, flagged):  # noqa: F811
    """macOS writes UTF-8 and sets no flag that says so."""
    archive = zipped(photos, tmp_path / "mac.zip", "café")
    data = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        at = data.find(mark)
        while at >= 0 and not flagged:
            data[at + offset] &= ~0x08
            at = data.find(mark, at + 4)
    archive.write_bytes(data)
    assert packer("--source", archive)[0] == 0
    assert [c.wnid for c in load_manifest(tmp_path / "packed").classes] == ["apple", "bread", "café"]


@pytest.mark.fault(33)
def test_a_zips_names_in_code_page_437_stay(photos, packer, tmp_path):  # noqa: F811
    archive = zipped(photos, tmp_path / "dos.zip", "cafX")
    archive.write_bytes(archive.read_bytes().replace(b"cafX", b"caf\x82"))  # e with an acute accent there
    assert packer("--source", archive)[0] == 0
    assert load_manifest(tmp_path / "packed").classes[2].wnid == "café"


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda splits: splits["train"].update(per_class=[9, 0, 0]), "expected the manifest's 9"),
        (lambda splits: splits["val"].update(labelled=False), "found labels, expected none"),
        (lambda splits: splits.update(train=splits["val"], val=splits["train"]), "expected"),
    ],
)
def test_facts_that_contradict_the_labels(photos, packer, tmp_path, change, says):  # noqa: F811
    assert packer("--source", photos, "--engines", "resident")[0] == 0
    path = tmp_path / "packed" / "manifest.json"
    content = json.loads(path.read_text())
    change(content["splits"])
    path.write_text(json.dumps(content))
    code, _, err = packer("--check", "full")
    assert code == 3 and says in err
    from fastres.data.labels import read_labels

    manifest = load_manifest(tmp_path / "packed")
    with pytest.raises(DataError, match=says):
        [read_labels(tmp_path / "packed", manifest, split) for split in ("train", "val")]


@pytest.mark.fault(32)
@pytest.mark.parametrize("largest", [1.0, 200.0, 60_000.0])
def test_a_float_picture_whose_white_is_zero(tmp_path, largest):
    values = np.linspace(0, largest, 64, dtype=np.float32).reshape(8, 8)
    found = []
    for photometric in (1, 0):
        Image.fromarray(values).save(tmp_path / "a.tif", tiffinfo={262: photometric})
        with Image.open(tmp_path / "a.tif") as image:
            assert image.tag_v2[262] == photometric
            found.append(np.asarray(convert.visible(image, convert.WHITE)[0])[..., 0].astype(int))
    assert found[0][0, 0] == 0 and found[1][0, 0] == 255
    assert np.abs(found[0] + found[1] - 255).max() <= 1
