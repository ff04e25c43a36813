"""A run as an object: the command line that it becomes means the same run; what is refused, and in which order."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from fastres.machine.errors import UsageError
from fastres.schedules.writing import write_schedule
from fastres.train.command import parser
from fastres.train.options import Options
from tests.conftest import TINY
from tests.support.tiny_runs import train_tiny

# A value of each field that is not its default.
OTHER = {
    "data": Path("elsewhere/packed data"), "engine": "ffcv", "device": "cuda:3", "precision": "bf16",
    "deterministic": True, "run_dir": Path("runs/live/one"), "seed": 7, "start_from": Path("runs/live/two"),
    "checkpoint_every": 0, "wandb": "offline", "project": "a project", "wandb_artifact": True, "sync_bn": True,
    "allow_process_change": True, "no_evaluation": True,
}  # fmt: skip


def parsed(words: list[str]) -> Options:
    return Options.of(parser().parse_args(words))


@pytest.mark.parametrize("names", [*((name,) for name in OTHER), (), tuple(OTHER)], ids=lambda names: "+".join(names))
def test_the_command_line_of_a_run_means_that_run(tmp_path, names):
    file = write_schedule(tmp_path / "tiny.py", TINY, "for a test")
    run = Options(schedule=TINY, **{name: OTHER[name] for name in names})
    assert parsed(run.command_line(file)) == run
    assert len(run.command_line(file)) >= 2 + len(names)


def test_every_field_has_another_value_here_and_the_same_default_in_both():
    defaults = {field.name: field.default for field in fields(Options) if field.default is not MISSING}
    assert set(OTHER) == set(defaults) and not any(OTHER[name] == defaults[name] for name in OTHER)
    args = parser().parse_args(["--schedule", "demo"])
    assert {name: getattr(args, name) for name in defaults} == defaults


def test_refusals_come_in_an_order_and_before_a_schedule_is_read(tmp_path):
    bad = ["--schedule", "no such schedule", "--checkpoint-every", "-1"]
    artifact = ["--wandb", "off", "--wandb-artifact"]
    with pytest.raises(UsageError, match="--wandb-artifact"):
        parsed([*bad, "--seed", "-1", *artifact])
    with pytest.raises(UsageError, match="--seed -1: expected 0 to"):
        parsed([*bad, "--seed", "-1"])
    with pytest.raises(UsageError, match="--checkpoint-every -1: expected 0"):
        parsed(bad)
    with pytest.raises(UsageError, match="--seed"):
        Options(schedule=TINY, seed=1 << 31)


def test_a_refused_interval_leaves_a_run_as_it_was(packed, tmp_path, capsys):
    train_tiny(packed, tmp_path / "run", "--checkpoint-every", -2, code=2)
    assert "--checkpoint-every -2: expected 0" in capsys.readouterr().err and not (tmp_path / "run").exists()
