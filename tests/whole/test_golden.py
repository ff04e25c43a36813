"""The demo's losses, step by step, are those in the repository (tests/support/golden.py makes them)."""

import json

import pytest

from fastres.data.manifest import sha256_of
from fastres.model.weights import SHIPPED
from tests.support import golden

RECORD = json.loads(golden.FILE.read_text())


def test_the_trace_is_of_the_net_that_is_shipped():
    """A new shipped net makes other losses: python -m tests.support.golden --write."""
    assert RECORD["shipped_net"] == sha256_of(SHIPPED / "small_world_resnet18_w16.safetensors")


@pytest.mark.slow
def test_losses_are_the_golden_ones(capsys):
    """Bit for bit where processor, torch and numba are the recorded ones; within the tolerance elsewhere."""
    now = golden.trace()
    if now["made_by"] == RECORD["made_by"]:
        assert (now["train_loss"], now["val_loss"]) == (RECORD["train_loss"], RECORD["val_loss"])
    assert golden.distance(now, RECORD) <= golden.TOLERANCE == RECORD["tolerance"]


def test_the_trace_is_of_every_step_of_four_stages():
    """100 images in batches of 32 are 4 steps; the loss of a net that guesses is log 20 = 3.0."""
    assert [row[:2] for row in RECORD["train_loss"]] == [[stage, step] for stage in range(4) for step in (1, 2, 3, 4)]
    assert all(1.5 < row[-1] < 4.5 for row in RECORD["train_loss"]) and len(RECORD["val_loss"]) == 4


@pytest.mark.slow
def test_the_trace_notices_another_seed(capsys):
    """The control: what is compared moves by more than the tolerance when the views do."""
    assert golden.distance(golden.trace("--seed", "1"), RECORD) > 2 * golden.TOLERANCE
