"""Variables of the surroundings that nobody checks before a command meets them."""

import os

import pytest
import torch

import fastres
from fastres.machine.arguments import asked
from fastres.machine.command import run_command
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.processes.distributed import Processes
from fastres.track import mirror
from fastres.train import command
from fastres.train.summary import wall_before


@pytest.mark.parametrize(("rank", "size"), [("5", "2"), ("2", "2"), ("-1", "2"), ("x", "2"), ("0", "0"), ("0", "two")])
def test_a_rank_that_nobody_has_is_said_at_once(monkeypatch, rank, size):
    for name, value in {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError, match="RANK is .* expected 0 or more and below it"):
        Processes(torch.device("cpu"))


def test_a_backend_that_matplotlib_does_not_know_reaches_no_picture(monkeypatch):
    """Its import would end a run after all of the training."""
    monkeypatch.setenv("MPLBACKEND", "nope")
    assert run_command(lambda: 1 if "MPLBACKEND" in os.environ else 0) == 0


@pytest.mark.parametrize("said", ["none", "false", "OFLINE"])
def test_a_wandb_mode_that_nobody_knows_sends_nothing(monkeypatch, said):
    monkeypatch.setenv("WANDB_MODE", said)
    with pytest.raises(UsageError, match=f"WANDB_MODE={said.lower()}: unknown, expected one of online, offline"):
        mirror.open_wandb(None, None, "p", "n", {})


@pytest.mark.parametrize(
    ("variable", "said"),
    [("WANDB_MODE", "off"), ("WANDB_MODE", "DISABLED"), ("WANDB_MODE", " disabled "), ("WANDB_DISABLED", "true")],
)
def test_the_ways_to_say_no_to_wandb(monkeypatch, variable, said):
    monkeypatch.setattr(mirror, "has_login", lambda: True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv(variable, said)
    assert isinstance(mirror.open_wandb(None, None, "p", "n", {}), mirror.NoWandb)


def test_false_is_no_value_of_an_option():
    """wandb=False would have meant the default, which is online where there is a login."""
    with pytest.raises(UsageError, match="wandb: found False, expected a value"):
        asked(command.parser(), schedule="demo", wandb=False)
    assert asked(command.parser(), schedule="demo", deterministic=False, no_evaluation=False).deterministic is False


@pytest.mark.parametrize("path", ["", " ", None, 5, b"x"])
def test_an_empty_path_is_not_the_working_folder(path):
    for call in (fastres.load, fastres.Run):
        with pytest.raises(UsageError, match="expected a (name|path)"):
            call(path)


@pytest.mark.parametrize("time", [None, "yesterday", 7, "2026-01-01T00:00:00"])
def test_a_damaged_time_in_a_log_ends_no_run(time):
    log = [
        {"event": "start", "time": time},
        {"event": "epoch", "time": "2026-01-01T00:00:09+00:00"},
        {"event": "start"},
    ]
    assert wall_before(log) == 0
