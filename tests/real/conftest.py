"""The real data set and ImageNet's weights, where TINY_IMAGENET (a tree or a zip) and IMAGENET_WEIGHTS (a folder with
resnet18.safetensors) say where they are; elsewhere these tests are skipped with that reason."""

import os
import zipfile
from pathlib import Path

import pytest

from preprocess import pack


def given(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is not set")
    return Path(value)


def packed_into(out: Path, source: Path, *options: str) -> Path:
    """Packed by the packer's command in this process."""
    assert pack.main(["--source", str(source), "--out", str(out), *options]) == 0
    return out


@pytest.fixture(scope="session")
def source() -> Path:
    """The data set, as whoever runs the tests has it."""
    return given("TINY_IMAGENET")


@pytest.fixture(scope="session")
def tree(source, tmp_path_factory) -> Path:
    """The data set unpacked."""
    if source.is_dir():
        return source
    folder = tmp_path_factory.mktemp("unzipped")
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    return folder / "tiny-imagenet-200"


@pytest.fixture(scope="session")
def packed(source, tmp_path_factory) -> Path:
    """All of it, for every engine that is installed."""
    return packed_into(tmp_path_factory.mktemp("real") / "packed", source)


@pytest.fixture(scope="session")
def few(source, tmp_path_factory) -> Path:
    """The first training image and 5 validation images of each class."""
    options = ("--classes", "0:200", "--per-class", "1,5", "--engines", "resident")  # a slice leaves test out
    return packed_into(tmp_path_factory.mktemp("few") / "packed", source, *options)


@pytest.fixture(scope="session")
def half(source, tmp_path_factory) -> Path:
    """The first 25 training and 5 validation images of every second class: all of them take a CPU ten minutes."""
    options = ("--classes", "0:200:2", "--per-class", "25,5", "--engines", "resident")
    return packed_into(tmp_path_factory.mktemp("half") / "packed", source, *options)


@pytest.fixture(scope="session")
def weights() -> Path:
    """ImageNet's ResNet-18 under torchvision's keys, 1,000 outputs."""
    return given("IMAGENET_WEIGHTS") / "resnet18.safetensors"
