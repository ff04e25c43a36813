"""Shared by all tests: small packed data, and schedules short enough to run to their end in a second or two."""

import gc
import os
import signal

os.environ.setdefault("WANDB_MODE", "disabled")  # tests of the mirror ask for it themselves

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastres.machine import gpu
from fastres.schedules.types import Optimizer, Plateau, Schedule, Stage
from tests.support import fault_record, trees, worlds
from tests.support.demo import demo_run, demo_world  # noqa: F401 - fixtures

# the networks here are so small that a second thread costs more than it brings
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # pytest was started by nohup; the processes of tests are not
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Begun first, so that at the end no process waits for another one's. In the fast tier one process compiles Numba's
# kernels in test_views while the next is at test_fake_cuda and test_triton_views, which need none of them: on a fresh
# machine each process would compile them for itself.
LONGEST = (
    *("test_end_to_end.py", "test_newcomer.py", "test_many_processes.py", "test_kills.py"),
    *("test_views.py", "test_fake_cuda.py", "test_triton_views.py", "test_every_schedule.py", "test_train.py"),
    *("test_run_files.py", "test_distributed.py", "test_api.py", "test_predict_images.py", "test_start_from.py"),
)


def pytest_addoption(parser) -> None:
    fault_record.add_option(parser)


def pytest_collection_modifyitems(items) -> None:
    fault_record.note_marks(items)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """What was imported needs no more looks: 360,000 objects, which cost each gc.collect() of a run 0.35 s."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """On CI a test of a fault may not be skipped, or reliability.md's table would go on saying that it is survived."""
    report = yield
    needs_gpu, real = item.get_closest_marker("gpu"), item.get_closest_marker("real")
    if report.skipped and os.environ.get("CI") and not needs_gpu:
        if item.get_closest_marker("fault"):
            report.outcome, report.longrepr = "failed", f"a fault's test was skipped on CI: {report.longrepr}"
        if real and os.environ.get("TINY_IMAGENET"):
            report.outcome, report.longrepr = "failed", f"the real data are here, and a test skipped: {report.longrepr}"
    return report


def pytest_runtest_logreport(report) -> None:
    fault_record.note_report(report)


def pytest_sessionfinish(session) -> None:
    gc.unfreeze()  # or libraries take what is left at the end for leaks
    if session.config.getoption("--record-faults"):
        fault_record.write()


@pytest.fixture(autouse=True)
def _forgets_the_gpu():
    """Each test asks torch for the GPU anew, or a test that patches torch would depend on the tests before it."""
    gpu.is_usable.cache_clear()


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
    from tests.support.packing import Packer

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
    from tests.support.search_runs import arithmetic

    return arithmetic(monkeypatch)


@pytest.fixture
def launch(monkeypatch):
    """The study's runs and searches go in this process, without the study's pictures; every command line of theirs."""
    from fastres.study.findings import report
    from fastres.study.training import launch
    from tests.support.study_runs import InProcess

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


TINY_FILE = Path(__file__).parent / "support" / "tiny_schedule.py"
