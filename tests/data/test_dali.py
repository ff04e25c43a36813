"""The DALI format: read by DALI alone, a tar that tar reads, original bytes where they serve."""

import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch

from fastres.data.dali import read_index
from fastres.data.engines import open_split
from fastres.data.manifest import load_manifest
from fastres.machine.errors import DataError
from preprocess.writers.dali import tar_header
from tests.support.packing import Packer, arrays, need, spoil
from tests.support.trees import read_image, wnid, write_tree

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def library():
    need("dali")


# What a user of DALI would write, with nothing of ours.
SCRIPT = """
import sys
import numpy as np
from nvidia.dali import fn, pipeline_def
@pipeline_def(batch_size=7, num_threads=1, device_id=None)
def read(tar, index):
    files, labels, ids = fn.readers.webdataset(paths=tar, index_paths=index, ext=["jpg;png", "cls", "id"], name="r")
    return fn.decoders.image(files, device="cpu"), labels, ids
pipeline = read(sys.argv[1], sys.argv[2])
for batch in range(-(-pipeline.reader_meta("r")["epoch_size"] // 7)):
    for image, label, i in zip(*pipeline.run()):
        print(bytes(np.asarray(i)).decode(), bytes(np.asarray(label)).decode(), np.asarray(image).sum(dtype=int))
"""


def test_a_script_of_dali_alone_reads_our_files(packed_for_engines):
    paths = [packed_for_engines / name for name in ("val.tar", "val.idx")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *paths], capture_output=True, text=True, timeout=120, cwd="/")
    assert done.returncode == 0, done.stderr
    images, labels, _ = arrays(packed_for_engines, "val")
    expected = [f"{i} {labels[i]} {int(images[i].sum())}" for i in range(40)]
    assert done.stdout.split("\n")[:40] == expected  # its last batch is filled up from the start


def test_the_index_is_what_dalis_tool_makes(packed_for_engines, tmp_path):
    for split in ("train", "val", "test"):
        tool = [sys.executable, "-m", "wds2idx", packed_for_engines / f"{split}.tar", tmp_path / "theirs.idx"]
        subprocess.run(tool, check=True, capture_output=True)
        assert (tmp_path / "theirs.idx").read_text() == (packed_for_engines / f"{split}.idx").read_text()


@pytest.mark.fault(6)
@pytest.mark.parametrize("split", ["train", "test"])
def test_members_are_the_original_files_or_the_packed_pixels(packed_for_engines, split):
    tree = packed_for_engines.parent / "tree"
    images, labels, files = arrays(packed_for_engines, split)
    odd = {f"train/{wnid(k)}/images/{wnid(k)}_0.JPEG" for k in (1, 2)} | {"test/images/test_1.JPEG"}
    with tarfile.open(packed_for_engines / f"{split}.tar") as archive:
        content = {member.name: archive.extractfile(member).read() for member in archive}
    for i, path in enumerate(files):
        if path in odd:  # CMYK, PNG: not every decoder would agree
            assert content.pop(f"{i:08d}.png").startswith(b"\x89PNG")
        else:
            assert content.pop(f"{i:08d}.jpg") == (tree / path).read_bytes()
        assert content.pop(f"{i:08d}.id") == str(i).encode()
        if labels is not None:
            assert content.pop(f"{i:08d}.cls") == str(labels[i]).encode()
        assert np.array_equal(images[i], read_image(tree / path))
    assert content == {}


@pytest.mark.parametrize("size", [0, 1, 512, 8**7 + 5, 8**11 - 1])
def test_headers_are_those_of_tarfile(size):
    info = tarfile.TarInfo("00000012.jpg")
    info.size = size
    assert tar_header(info.name, size) == info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.fault(7)
def test_images_left_out_lower_the_count(tmp_path, capsys):
    write_tree(tmp_path / "tiny")
    spoil(tmp_path / "tiny")
    run = Packer(tmp_path, capsys)
    code, _, err = run("--source", tmp_path / "tiny", "--on-bad", "skip", "--engines", "dali,resident")
    assert code == 0, err
    data = open_split("dali", tmp_path / "packed", load_manifest(tmp_path / "packed"), "train", CPU)
    assert len(data) == 22
    batch = next(data.batches(np.arange(22), 22))
    assert np.array_equal(batch.images.numpy(), arrays(tmp_path / "packed", "train")[0])


@pytest.mark.parametrize(
    "text", ["", "v1.1 1\njpg 512 3 0.jpg\n", "v1.2 2\njpg 512 3 0.jpg\n", "v1.2 1\ncls 512 3 0.cls\n"]
)
def test_an_index_of_another_kind(tmp_path, text):
    (tmp_path / "x.idx").write_text(text)
    with pytest.raises(DataError, match="x.idx: not an index"):
        read_index(tmp_path / "x.idx")
