"""The loop, step by step: rates and losses at every one, and what a stage may not touch."""

import pytest
import torch

from fastres.machine.device import Precision
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.schedules.types import Optimizer, Stage
from fastres.stage.optimizer import sgd
from fastres.stage.stage_step import STEPS
from fastres.stage.step import EagerStep
from fastres.train import loop
from tests.support.tiny_runs import train_tiny


@pytest.mark.slow
def test_trace_of_every_step(packed, tmp_path, monkeypatch):
    """Stage, crop, rate and number of learning tensors at each optimiser step, against rows written by hand.

    40 images in batches of 16 are 3 steps an epoch; a width-8 ResNet-18 has 62 parameter tensors.
    """
    trace = []

    class Recording(EagerStep):
        def __call__(self, batch, plan, lr):
            learning = sum(len(group["params"]) for group in self.optimizer.param_groups)
            trace.append((plan.stage, plan.epoch, plan.geometry.crop, lr, learning, len(batch.ids)))
            super().__call__(batch, plan, lr)

    monkeypatch.setitem(STEPS, "eager", Recording)
    # least=200: nothing counts as an improvement, so patience 1 lowers the rate after every epoch but the first
    train_tiny(packed, tmp_path / "run", "--set", "lr_policy.least=200", "--set", "lr_policy.factor=0.5")
    rows = [  # stage, epoch, crop, lr, learning tensors
        (0, 1, 56, 0.05, 2),
        (1, 1, 56, 0.05, 62),
        (1, 2, 56, 0.05, 62),
        (2, 1, 14, 0.05, 1),
        (3, 1, 14, 0.02, 62),
        (3, 2, 14, 0.02, 62),
    ]
    assert trace == [(*row, size) for row in rows for size in (16, 16, 8)]


@pytest.mark.slow
def test_plateau_reaches_the_steps(packed, tmp_path, monkeypatch):
    """The rate the optimiser uses falls where the rule says, and starts anew with the next stage."""
    rates = []
    original = EagerStep.__call__

    def recording(self, batch, plan, lr):
        original(self, batch, plan, lr)
        rates.append((plan.stage, plan.epoch, self.optimizer.param_groups[0]["lr"]))

    monkeypatch.setattr(EagerStep, "__call__", recording)
    train_tiny(packed, tmp_path / "run", "--set", "stages.1.epochs=3", "--set", "lr_policy.least=200")
    seen = {(stage, epoch): lr for stage, epoch, lr in rates}
    assert seen == {
        (0, 1): 0.05,
        (1, 1): 0.05,
        (1, 2): 0.05,
        (1, 3): pytest.approx(0.005),
        (2, 1): 0.05,
        (3, 1): 0.02,
        (3, 2): 0.02,
    }


@pytest.mark.slow
def test_frozen_state_does_not_move(packed, tmp_path, monkeypatch):
    """The whole state dict, buffers included, before and after each single-layer stage."""
    states = {}
    begin, done = loop.train_epoch, loop.validate_epoch

    def before(run_, stage, epoch, stop):
        states.setdefault(stage.index, []).append({k: v.clone() for k, v in run_.network.state_dict().items()})
        begin(run_, stage, epoch, stop)

    def after(run_, stage, epoch, stop):
        states[stage.index].append({k: v.clone() for k, v in run_.network.state_dict().items()})
        done(run_, stage, epoch, stop)

    monkeypatch.setattr(loop, "train_epoch", before)
    monkeypatch.setattr(loop, "validate_epoch", after)
    train_tiny(packed, tmp_path / "run")
    for stage, moving in ((0, {"fc.weight", "fc.bias"}), (2, {"conv1.weight"})):
        old, new = states[stage]
        assert {key for key in old if not torch.equal(old[key], new[key])} == moving
    old, new = states[1][0], states[1][-1]
    assert all(not torch.equal(old[key], new[key]) for key in old)  # counters and statistics too


@pytest.mark.parametrize("rule", ["frozen", "recalibrated", "batch"])
def test_bn_rule_decides_what_moves_in_a_single_layer_stage(rule):
    """Two steps of a conv1 stage: with `batch` every statistic moves too, and still no other weight."""
    network = build(Architecture("resnet18", 8, 4, "3x3"))
    stage = Stage(name="conv1", epochs=1, train=("conv1.*",), upscale=1, bn=rule)
    learning = set_trainable(network, stage.train)
    training_mode(network, stage)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step = EagerStep(network, sgd(learning, Optimizer(), 0.01), Precision("fp32", torch.device("cpu")))
    for _ in range(2):
        step._update(torch.randn(8, 3, 16, 16).to(memory_format=torch.channels_last), torch.arange(8) % 4)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert moved == {"conv1.weight"} | (statistics if rule == "batch" else set())
