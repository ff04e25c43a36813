"""pack.py --source labels.csv: a CSV of file, label and perhaps split in each form that programs write it."""

import csv
import io
import json
import os
import random

import numpy as np
import pytest

from fastres.data.manifest import load_manifest
from tests.support.packing import arrays, names_in, pixels_and_labels, verify_all
from tests.support.trees import picture, read_image, write_image

# file, label, split
ROWS = [
    ("scans/10.png", "cat", "train"),
    ("scans/2.png", "cat", "train"),
    ("a, b.png", "dog", "train"),
    ("x;y.png", "dog", "train"),
    ("scans/deep/er/3.png", "dog", "val"),
    ("4.png", "cat", "val"),
    ("5.png", "", "test"),
]
IN_ORDER = {
    "train": ["scans/2.png", "scans/10.png", "a, b.png", "x;y.png"],
    "val": ["4.png", "scans/deep/er/3.png"],
    "test": ["5.png"],
}


@pytest.fixture
def folder(tmp_path):
    """The images of ROWS, 16 pixels, and the CSV that lists them."""
    root = tmp_path / "photos"
    for seed, (file, _, _) in enumerate(ROWS):
        write_image(root / file, picture(16, seed), "PNG")
    (root / "labels.csv").write_bytes(written(ROWS))
    return root


def written(rows, delimiter=",", header=("file", "label", "split"), encoding="utf-8") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([*([header] if header else []), *rows])
    return text.getvalue().encode(encoding)


def test_every_row_is_packed_with_its_label(folder, packer):
    code, out, err = packer("--source", folder / "labels.csv")
    assert code == 0, err
    manifest = verify_all(packer.out)
    assert manifest.wnids == ["cat", "dog"] and manifest.source["kind"] == "csv" and "labels.csv, 2 classes" in out
    labels_of = {file: label for file, label, _ in ROWS}
    for split, files in IN_ORDER.items():
        images, labels, found = arrays(packer.out, split)
        assert found == files
        for row, file in enumerate(files):
            assert np.array_equal(images[row], read_image(folder / file))
            assert split == "test" or manifest.wnids[labels[row]] == labels_of[file]


@pytest.mark.parametrize(
    "content",
    [
        written(ROWS, ";"),
        written(ROWS, "\t"),
        written(ROWS, header=None),
        written(ROWS, ";", header=None),
        written(ROWS, "\t", header=None),
        written(ROWS, encoding="utf-8-sig"),
        written(ROWS, "\t", encoding="utf-16"),
        written(random.Random(0).sample(ROWS, len(ROWS))),
        written([(split, label, file) for file, label, split in ROWS], header=("Split", " CLASS ", "Filename")),
        written([(file, f" {label} ", f" {split.upper()} ") for file, label, split in ROWS]),
        written([(f"./{file}", label, {"val": "validation"}.get(split, split)) for file, label, split in ROWS]),
        written([(file.replace("/", "\\"), label, split) for file, label, split in ROWS], ";"),
        written(ROWS).replace(b"\r\n", b"\n\n"),
        written(ROWS).rstrip(),
    ],
)  # fmt: skip
def test_however_it_is_written(folder, packer, tmp_path, content):
    assert packer("--source", folder / "labels.csv", out=tmp_path / "plain")[0] == 0
    (folder / "other.csv").write_bytes(content)
    code, _, err = packer("--source", folder / "other.csv")
    assert code == 0, err
    assert pixels_and_labels(packer.out) == pixels_and_labels(tmp_path / "plain")
    assert load_manifest(packer.out).data_digest == load_manifest(tmp_path / "plain").data_digest


def test_labels_and_names_with_accents(folder, packer):
    """Composed in the CSV, decomposed on the disk, as macOS has it; and a CSV in Latin-1."""
    (folder / "4.png").rename(folder / "cafe\u0301.png")
    rows = [("café.png" if file == "4.png" else file, label.replace("cat", "chatière"), s) for file, label, s in ROWS]
    for encoding in ("utf-8", "latin-1"):
        (folder / "labels.csv").write_bytes(written(rows, encoding=encoding))
        code, _, err = packer("--source", folder / "labels.csv")
        assert code == 0, err
        assert (
            load_manifest(packer.out).wnids == ["chatière", "dog"] and "cafe\u0301.png" in arrays(packer.out, "val")[2]
        )


def test_up_to_date_until_something_changes(folder, packer):
    def status():
        code, out, err = packer("--source", folder / "labels.csv", "--json")
        assert code == 0, err
        return json.loads(out)["status"]

    assert [status(), status()] == ["packed", "up to date"]
    (folder / "beside.png").write_bytes(b"in no row")
    (folder / "labels.csv").write_bytes(written(ROWS, ";"))
    assert status() == "up to date", "it says the same"
    os.utime(folder / "4.png", ns=(1, 1))
    assert status() == "packed"
    (folder / "labels.csv").write_bytes(written([*ROWS[:5], ("4.png", "dog", "val"), *ROWS[6:]]))
    assert status() == "packed" and load_manifest(packer.out).splits["val"]["per_class"] == [0, 2]


def test_links_are_followed_and_one_to_itself_is_a_bad_image(folder, packer, tmp_path):
    (folder / "4.png").rename(tmp_path / "elsewhere.png")
    (folder / "4.png").symlink_to(tmp_path / "elsewhere.png")
    assert packer("--source", folder / "labels.csv")[0] == 0
    (folder / "4.png").unlink()
    (folder / "4.png").symlink_to("4.png")
    code, _, err = packer("--source", folder / "labels.csv")
    assert code == 3 and "4.png: cannot be read" in err
    assert packer("--source", folder / "labels.csv", "--on-bad", "skip")[0] == 0


def test_parts_and_a_val_set_held_out(folder, packer):
    rows = [(file, label) for file, label, _ in ROWS[:6]]
    (folder / "labels.csv").write_bytes(written(rows, header=("file", "label")))
    code, _, err = packer("--source", folder / "labels.csv")
    assert code == 3 and "no row of val" in err and "--val-fraction" in err
    assert packer("--source", folder / "labels.csv", "--val-fraction", "0.3", "--side", "8", "--per-class", "1")[0] == 0
    splits = load_manifest(packer.out).splits
    assert splits["train"]["per_class"] == [1, 1] and splits["val"]["per_class"] == [1, 1] and "test" not in splits
    (folder / "labels.csv").write_bytes(written(ROWS))
    code, _, err = packer("--source", folder / "labels.csv", "--val-fraction", "0.3")
    assert code == 2 and "2 validation images of its own" in err


FAULTS = {
    "1.png,cat,train": "line 9 names '1.png', which is not in ",
    "4.png,,val": "line 9 has no label for 4.png",
    "./scans/2.png,dog,val": "line 9 names scans/2.png again after line 3",
    "../photos/4.png,cat,train": "line 9 names '../photos/4.png', which may lead out of the CSV's folder",
    "scans/../../x.png,cat,train": "which may lead out of the CSV's folder",
    "/etc/x.png,cat,train": "which may lead out of the CSV's folder",
    "C:\\x.png,cat,train": "which may lead out of the CSV's folder",
    "scans,cat,train": "line 9 names 'scans', which is a folder",
    "n.png,cat,training set": "line 9 has the split 'training set', expected train, val or test",
    "n.png,cat,": "line 9 has the split ''",
    "n.png,cat": "line 9 has 2 fields, expected 3 as before it",
    "n.png,cat,train,1": "line 9 has 4 fields",
    'n.png,"cat,train': "line 9 is no row of a CSV",
    '\n"n.png",c"at,train\nn.png,"c"at,train': "line 11 is no row",
    '"n.\npng",cat,train': "line 9 names 'n.\\npng', which is not in ",
    'n.png,"c\nat",train': "line 9 has the label 'c\\nat' with a line break",
    "n.png,cow,val": "line 9 has the label 'cow', which no row of train has",
    "\0,cat,train": "line 9 names '\\x00', which is not in ",
    ",cat,train": "line 9 names '', which is not in ",
    f"{'n' * 300}.png,cat,train": "which is not in ",
}


@pytest.mark.parametrize("row", FAULTS)
def test_faults_are_a_sentence_with_file_and_line(folder, packer, row):
    write_image(folder / "n.png", picture(16, 99), "PNG")
    (folder / "labels.csv").write_bytes(written(ROWS) + row.encode() + b"\r\n")
    code, _, err = packer("--source", folder / "labels.csv")
    assert code == 3 and f"error: {folder / 'labels.csv'}: " in err and FAULTS[row] in err, err
    assert err.count("\n") == 1 and names_in(packer.out) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no row of train"),
        (b"file,label\n", "no row of train"),
        (b"file,label,size\n5.png,cat,3\n", "line 1 names the columns file, label, size"),
        (b"a,b,c,d\n", "line 1 has 4 fields, expected file, label and perhaps split"),
        (b"\n\njust words\n", "line 3 has 1 fields"),
        (b"4.png,cat\n5.png,cat\n", "one class only (cat)"),
        (b"id_code,diagnosis\n4.png,cat\n", "line 1 names 'id_code'"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1 "),
    ],
)
def test_what_is_no_table(folder, packer, content, says):
    (folder / "labels.csv").write_bytes(content)
    code, _, err = packer("--source", folder / "labels.csv", "--val-fraction", "0.5")
    assert code == 3 and f"{folder / 'labels.csv'}: " in err and says in err, err


def test_a_name_that_is_no_utf_8(folder, packer):
    write_image(folder / "n.png", picture(16, 99), "PNG")
    os.rename(os.fsencode(folder / "n.png"), os.fsencode(folder) + b"/caf\xe9.png")
    (folder / "labels.csv").write_bytes(written([*ROWS, ("café.png", "cat", "train")], encoding="latin-1"))
    code, _, err = packer("--source", folder / "labels.csv")
    assert code == 3 and "line 9 names 'caf\\udce9.png' with bytes that are no UTF-8" in err, err
