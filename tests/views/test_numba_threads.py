"""The numba kernels in several threads, in a forked child, and with their machine code on disk or nowhere."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fastres import views
from fastres.schedules.types import ViewSettings
from fastres.views import CENTRE_VIEW, TestPlan
from fastres.views.geometry import Geometry
from tests.support.view_plans import bytes_of, plan_of


def test_one_plan_of_one_view_and_every_number_of_threads():
    images, rows = bytes_of(40, 16), torch.arange(40)
    plan = TestPlan(geometry=Geometry(16, 2), settings=ViewSettings(), views=CENTRE_VIEW)
    train = plan_of("train", Geometry(16, 2))
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append((views.apply(images, rows, rows, plan), views.apply(images, rows, rows, train)))
    finally:
        torch.set_num_threads(threads)
    for test_views, train_views in results[1:]:
        assert torch.equal(test_views, results[0][0]) and torch.equal(train_views, results[0][1])


def test_several_threads_may_call_at_once():
    images, rows = bytes_of(60, 16), torch.arange(60)
    plan = plan_of("train", Geometry(16, 2))
    truth, wrong = views.apply(images, rows, rows, plan), []

    def caller():
        for _ in range(20):
            if not torch.equal(views.apply(images, rows, rows, plan), truth):
                wrong.append(1)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


PROGRAM = """
import os, sys, torch
from fastres import views
from fastres.views.geometry import Geometry
from fastres.schedules.types import ViewSettings
plan = views.TrainPlan(geometry=Geometry(8, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)
images, rows = torch.zeros(20, 8, 8, 3, dtype=torch.uint8), torch.arange(20)
total = views.apply(images, rows, rows, plan).sum()
from fastres.views import numba_colour, numba_copies
hits = sum(sum(f.stats.cache_hits.values()) for f in (numba_colour.decide, numba_copies.copy_range))
print("hits", hits, flush=True)
child = os.fork()  # a forked worker has no threads of ours: it must make its own, not wait for them
if child == 0:
    os._exit(0 if views.apply(images, rows, rows, plan).sum() == total else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run_program(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_machine_code_is_kept_on_disk_and_a_forked_child_works():
    """This process has compiled everything by now: another one with the same cache compiles nothing."""
    images, rows = bytes_of(20, 8), torch.arange(20)
    views.apply(images, rows, rows, plan_of("train", Geometry(8, 1)))
    assert run_program(PROGRAM) == "hits 2"


@pytest.mark.slow
def test_where_no_cache_can_be_written_it_still_works():
    """Numba finds no folder: neither beside the package, nor the user's, nor NUMBA_CACHE_DIR."""
    nowhere = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"
    assert run_program(nowhere + PROGRAM) == "hits 0"
