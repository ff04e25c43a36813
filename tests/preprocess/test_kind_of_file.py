"""What a file is, by its first bytes alone: nothing in it may pass for the header of a tar by accident."""

import io
import tarfile

import numpy as np
import pytest

from preprocess.sources.archive import CHECKSUM, PACKED, kind_of

UNLUCKY = b"\x1f\x8b\x80\xd6"  # with zeros after them, their signed sum is the checksum 0 of a tar's header


def old_header(name: str) -> bytearray:
    """The header of a tar from before tars had a magic."""
    info = tarfile.TarInfo(name)
    header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    header[257:] = bytes(512 - 257)
    header[CHECKSUM] = b" " * 8
    header[CHECKSUM] = b"%06o\0 " % sum(header)
    return header


def test_bytes_that_add_up_to_a_checksum_of_nothing(tmp_path):
    head = UNLUCKY.ljust(512, b"\0")
    assert tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").chksum == 0, "tarfile takes it for a header"
    (tmp_path / "file").write_bytes(head)
    assert kind_of(tmp_path / "file") == "gzip"


@pytest.mark.parametrize("start", PACKED)
def test_whatever_follows_the_start_of_a_packed_file(tmp_path, start):
    random = np.random.default_rng(1)
    for size in (0, 8, 40, 600) * 50:
        data = start + random.bytes(size)
        (tmp_path / "file").write_bytes(data.ljust(600, b"\0"))
        assert kind_of(tmp_path / "file") == PACKED[start], data


@pytest.mark.parametrize("name", ["train/a.png", "BZh/a.png", "MSCF/a.png"])
def test_an_old_tar_has_only_its_checksum(tmp_path, name):
    header = old_header(name)
    with tarfile.open(fileobj=io.BytesIO(bytes(header) + bytes(1024))) as tar:
        assert tar.getnames() == [name]
    (tmp_path / "file").write_bytes(header)
    assert kind_of(tmp_path / "file") == "tar"
    header[0] ^= 1
    (tmp_path / "file").write_bytes(header)
    assert kind_of(tmp_path / "file") == "zip", "its reader finds out what is wrong"
