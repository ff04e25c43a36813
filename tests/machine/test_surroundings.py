"""Variables of the surroundings that nobody checks before a command meets them."""

import os

import pytest
import torch

from fastres.machine.command import run_command
from fastres.machine.errors import MachineError
from fastres.machine.processes.distributed import Processes


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
