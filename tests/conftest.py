"""Shared by all tests: small packed data, and schedules short enough to run to their end in a second or two."""

import os

os.environ.setdefault("WANDB_MODE", "disabled")  # tests of the mirror ask for it themselves

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastres.schedule_types import Optimizer, Plateau, Schedule, Stage
from tests import fault_record, trees, worlds
from tests.demo import demo_run, demo_world  # noqa: F401 - fixtures

# the networks here are so small that a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_addoption(parser) -> None:
    fault_record.add_option(parser)


def pytest_collection_modifyitems(items) -> None:
    fault_record.note_marks(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI a test of a fault may not be skipped, or README's table would go on saying that it is survived."""
    report = yield
    needs_gpu = item.get_closest_marker("gpu")
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("fault") and not needs_gpu:
        report.outcome, report.longrepr = "failed", f"a fault's test was skipped on CI: {report.longrepr}"
    return report


def pytest_runtest_logreport(report) -> None:
    fault_record.note_report(report)


def pytest_sessionfinish(session) -> None:
    if session.config.getoption("--record-faults"):
        fault_record.write()


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """40 + 20 + 6 images of 16 pixels in 4 classes."""
    return worlds.pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def packed_for_engines(tmp_path_factory) -> Path:
    """160 + 40 + 7 images of 16 pixels in 5 classes, odd ones among them, packed for every engine installed here."""
    from preprocess import pack

    folder = tmp_path_factory.mktemp("engines")
    trees.write_tree(folder / "tree", classes=5, train=32, val=8, test=7)
    assert pack.main(["--source", str(folder / "tree"), "--out", str(folder / "packed"), "--workers", "1"]) == 0
    return folder / "packed"


@pytest.fixture
def tree(tmp_path):
    """A tree of 4 classes at <tmp>/tiny, and its truth: path -> class id."""
    return tmp_path / "tiny", trees.write_tree(tmp_path / "tiny")


@pytest.fixture
def packer(tmp_path, capsys):
    """packer(*arguments) packs into <tmp>/packed, or into `out`."""
    from tests.packing import Packer

    return Packer(tmp_path, capsys)


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    """No key, no proxy and no server of whoever runs the tests, for W&B."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def trained(monkeypatch):
    """Training that the search's trials do in no time; every call of it."""
    from tests.search_runs import arithmetic

    return arithmetic(monkeypatch)


@pytest.fixture
def launch(monkeypatch):
    """The study's runs and searches go in this process, without the study's pictures; every command line of theirs."""
    from fastres.study import launch, report
    from tests.study_runs import InProcess

    launched = InProcess()
    monkeypatch.setattr(launch, "Child", launched)
    for name in ("draw_curves", "draw_filters", "draw_answers"):
        monkeypatch.setattr(report, name, lambda *_: None)
    return launched


# The paper's four stages, on the smallest net and images: crop 56 at upscale 4, 14 at 1.
TINY = Schedule(
    name="tiny",
    width=8,
    weights=None,
    batch_size=16,
    optimizer=Optimizer(lr=0.05),
    lr_policy=Plateau(patience=1),
    stages=(
        Stage(name="fc",     epochs=1, train=("fc.*",),    upscale=4, surgery=("fc",)),
        Stage(name="all",    epochs=2, train=("*",),       upscale=4),
        Stage(name="conv1",  epochs=1, train=("conv1.*",), upscale=1, surgery=("stem:torch7",), bn="recalibrated"),
        Stage(name="all-14", epochs=2, train=("*",),       upscale=1, lr=0.02),
    ),
)  # fmt: skip


@pytest.fixture
def tiny() -> Schedule:
    return replace(TINY)


TINY_FILE = Path(__file__).with_name("tiny_schedule.py")
