"""How OpenMP's threads wait is chosen before torch is loaded: asleep where cores are taken, unless a user says how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastres.machine import waiting

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("threads", "cores", "others", "share", "chosen"),
    [
        (2, 2, 0, None, {}),  # idle
        (2, 2, 1, None, waiting.ASLEEP),  # one busy process
        (2, 64, 40, None, {}),  # two cores of a host that has free ones
        (2, 64, 63, None, waiting.ASLEEP),
        (1, 2, 2, None, {}),  # one thread waits for nobody
        (16, 16, 0, 2.0, {"OMP_NUM_THREADS": "2"}),  # docker run --cpus 2
        (16, 16, 0, 0.5, {"OMP_NUM_THREADS": "1"}),
        (16, 16, 0, 16.0, {}),
        (4, 4, 0.5, None, waiting.ASLEEP),
        (16, 16, 15, 2.0, {"OMP_NUM_THREADS": "2", **waiting.ASLEEP}),  # a share of a busy machine
        (32, 64, 1, None, {}),  # 32 cores of two threads each
    ],
)
def test_a_table_of_machines(threads, cores, others, share, chosen):
    found, why = waiting.settings(threads, cores, others, share)
    assert found == chosen and bool(why) == bool(chosen)


@pytest.fixture
def busy(monkeypatch, tmp_path):
    monkeypatch.setattr(waiting, "taken_by_others", lambda: float(os.cpu_count()))
    monkeypatch.setattr(waiting, "share_of_time", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(waiting, "CORES", tmp_path)  # nothing known of them


@pytest.mark.parametrize(
    "given",
    [
        {"OMP_WAIT_POLICY": "ACTIVE"},
        {"GOMP_SPINCOUNT": "100"},
        {"OMP_NUM_THREADS": "1"},
        {"MKL_NUM_THREADS": "1"},
        {waiting.SAID: ""},
    ],
    ids=str,
)
def test_what_a_user_has_set_stays(busy, given):
    environment = dict(given)
    waiting.choose(environment)
    assert environment == given


def test_on_a_busy_machine_threads_sleep_and_children_know_it(busy):
    environment = {}
    waiting.choose(environment)
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE" and "other work has" in environment[waiting.SAID]
    again = dict(environment)
    waiting.choose(again)
    assert again == environment


def test_a_number_of_threads_says_nothing_of_how_they_wait(busy):
    environment = {"OMP_NUM_THREADS": "2"}
    waiting.choose(environment)
    assert environment["OMP_NUM_THREADS"] == "2" and environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_two_threads_of_a_core_are_one(busy, tmp_path):
    for cpu in (0, 1):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text("0-1")
    environment = {}
    waiting.choose(environment)
    assert environment == {}


def test_the_shares_of_containers(tmp_path):
    for text, share in (("max 100000\n", None), ("200000 100000\n", 2.0), ("50000 100000", 0.5), ("", None)):
        (tmp_path / "cpu.max").write_text(text)
        assert waiting.share_of_time(tmp_path) == share
    (tmp_path / "cpu.max").unlink()
    assert waiting.share_of_time(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000")
    for quota, share in (("150000", 1.5), ("-1", None)):
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
        assert waiting.share_of_time(tmp_path) == share


def test_what_runs_beside_is_counted_without_this_process(monkeypatch):
    texts = iter(["1.0 1.0 1.0 4/90 7"] * 2 + ["1.0 1.0 1.0 2/90 7"] * 5)
    monkeypatch.setattr(Path, "read_text", lambda _: next(texts))
    assert waiting.taken_by_others() == 1.0


@pytest.mark.parametrize("word", sorted(waiting.ONLY_TOLD))
def test_nothing_is_counted_for_a_text(busy, monkeypatch, word):
    monkeypatch.setattr(waiting, "taken_by_others", lambda: pytest.fail("the machine was sampled"))
    environment = {}
    waiting.choose(environment, ["train", word])
    assert environment == {}


SCRIPT = "import sys; from fastres.__main__ import console; sys.argv.insert(1, 'train'); console()"


@pytest.mark.parametrize(("words", "policy"), [(["--schedule", "paper"], "PASSIVE"), (["--help"], "None")], ids=str)
@pytest.mark.parametrize("way", [["-m", "fastres.train"], ["-m", "fastres", "train"], ["-c", SCRIPT]])
def test_every_way_into_a_command_chooses_before_torch_is_there(way, words, policy, tmp_path):
    """sitecustomize gives the machine fewer cores than threads, and says how they wait when torch is asked for."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "os.sched_getaffinity, os.cpu_count = lambda _: {0, 1}, lambda: 1\n"
        "class Torch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            print('torch is asked for,', os.environ.get('OMP_WAIT_POLICY'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Torch())\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for name in ("OMP_NUM_THREADS", *waiting.CHOSEN_BY_OTHERS, waiting.SAID):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, *way, *words], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(f"torch is asked for, {policy}"), done.stdout[:200]
