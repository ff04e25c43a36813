"""Stages that two schedules share are trained once: starting from another run's is the same, bit for bit."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch

from fastres.machine.errors import DataError
from fastres.model.reading import read_weights
from fastres.schedules import PAPER, SCHEDULES
from fastres.schedules.loading import shared_stages
from fastres.stage.step import EagerStep
from fastres.track.log import read_log
from fastres.train import loop
from fastres.train.stage_ends import find_start
from tests.conftest import TINY, TINY_FILE
from tests.support.tiny_runs import train_tiny

NAIVE = ["--set", "stages.2.train=*", "--set", "stages.2.epochs=2"]  # the first two stages are TINY's


def run(packed, folder, *extra, code=0):
    return train_tiny(packed, folder, "--precision", "fp32", *extra, code=code)


@pytest.fixture(scope="module")
def source(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    run(packed, folder)
    return folder


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    """The other schedule with every stage trained."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(packed, folder, *NAIVE)


def assert_same_end(folder, whole):
    a, b = (read_weights(f / "final.safetensors") for f in (folder, whole))
    assert all(torch.equal(a[key], b[key]) for key in b)
    logs = [
        [
            (r["stage"], r["epoch"], r["epoch_total"], r["lr"], r["val_loss"])
            for r in read_log(f / "log.jsonl")
            if r["event"] == "epoch"
        ]
        for f in (folder, whole)
    ]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_starting_from_another_run_ends_in_the_same_bits(packed, source, whole, tmp_path, monkeypatch):
    stages = []
    original = EagerStep.__call__

    def watching(self, batch, plan, lr):
        stages.append(plan.stage)
        original(self, batch, plan, lr)

    monkeypatch.setattr(EagerStep, "__call__", watching)
    summary = run(packed, tmp_path / "run", *NAIVE, "--start-from", str(source))
    assert set(stages) == {2, 3}  # and not the two that are shared
    assert_same_end(tmp_path / "run", whole[0])
    assert summary["errors"] == whole[1]["errors"]
    assert [s["epochs"] for s in summary["stages"]] == [1, 2, 2, 2]
    ends = [read_weights(f / "stages" / "1.safetensors") for f in (tmp_path / "run", source)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[1])


@pytest.mark.slow
def test_it_resumes_without_the_other_run(packed, source, whole, tmp_path, monkeypatch):
    original = EagerStep.__call__

    def stopping(self, *arguments):
        original(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(EagerStep, "__call__", stopping)
        run(packed, tmp_path / "run", *NAIVE, "--start-from", str(source), code=75)
    run(packed, tmp_path / "run", *NAIVE)
    assert_same_end(tmp_path / "run", whole[0])


@pytest.mark.slow
def test_a_schedule_that_is_the_beginning_of_another_trains_nothing(packed, source, tmp_path, monkeypatch):
    """As `initialized-fc` is of `paper`."""
    text = TINY_FILE.read_text().replace(
        "SCHEDULE = TINY", "from dataclasses import replace\nSCHEDULE = replace(TINY, name='x', stages=TINY.stages[:2])"
    )
    text = text.replace("Path(__file__).parents[2]", f"{str(TINY_FILE.parents[2])!r}")
    (tmp_path / "first_half.py").write_text(text)
    monkeypatch.setattr(loop, "train_epoch", None)  # would fail if it were called
    half = ["--schedule", str(tmp_path / "first_half.py"), "--start-from", str(source)]
    summary = run(packed, tmp_path / "run", *half)
    end = read_weights(source / "stages" / "1.safetensors")
    assert all(torch.equal(v, end[k]) for k, v in read_weights(tmp_path / "run" / "final.safetensors").items())
    assert summary["stages"][-1]["val_top1_err"] == summary["errors"]["expsum"]["centre"]["top1"]


@pytest.mark.parametrize(
    "extra,sentence",
    [
        (["--seed", "1"], "seed: 0 in the folder, 1 now"),
        (["--set", "optimizer.lr=0.5"], "schedule.optimizer.lr: 0.05 in the folder, 0.5 now"),
        (["--set", "stages.0.epochs=3"], "schedule.stages.0.epochs: 1 in the folder, 3 now"),
    ],
)
def test_what_differs_is_refused_and_nothing_is_left(packed, source, tmp_path, capsys, extra, sentence):
    run(packed, tmp_path / "run", "--start-from", str(source), *extra, code=2)
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_no_run_and_an_unfinished_one_are_refused(packed, source, tmp_path, capsys):
    run(packed, tmp_path / "run", "--start-from", str(tmp_path), code=2)
    assert "config.json" in capsys.readouterr().err
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.json").write_bytes((source / "config.json").read_bytes())
    run(packed, tmp_path / "run", "--start-from", str(tmp_path / "young"), code=2)
    assert "not ended its first stage" in capsys.readouterr().err


def test_a_flipped_bit_is_found(source, tmp_path):
    (tmp_path / "stages").mkdir()
    for name in ("config.json", "stages/0.safetensors"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    start = find_start(tmp_path, json.loads((source / "config.json").read_text()))
    assert start.stages == 1 and start.load()[1] == 40
    content = bytearray((tmp_path / "stages" / "0.safetensors").read_bytes())
    content[-5] ^= 1
    (tmp_path / "stages" / "0.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="do not match the digest"):
        start.load()


def test_shared_stages_counts_what_is_the_same():
    assert shared_stages(TINY, TINY) == 4
    assert shared_stages(TINY, replace(TINY, name="other", expected={"centre top1": 1.0})) == 4
    assert shared_stages(TINY, replace(TINY, batch_size=8)) == 0
    stages = list(TINY.stages)
    stages[1] = replace(stages[1], name="another name")
    assert shared_stages(TINY, replace(TINY, stages=tuple(stages))) == 4
    stages[1] = replace(stages[1], lr=1.0)
    assert shared_stages(TINY, replace(TINY, stages=tuple(stages))) == 1
    assert shared_stages(json.loads(json.dumps(TINY.to_dict())), TINY) == 4  # as config.json has it


def test_the_papers_systems_share_what_the_paper_says():
    """Figure 6 starts from the model of section 5.1."""
    shared = {name: shared_stages(PAPER, schedule) for name, schedule in SCHEDULES.items()}
    assert (shared["initialized-fc"], shared["conv1-naive"], shared["conv1-blank"]) == (2, 2, 2)
    assert (shared["naive-fc"], shared["from-scratch"], shared["feature-extractor-50"]) == (0, 0, 0)
