"""A loss that is not finite: no weight moves, the batch is named, nothing is saved after it, exit 5."""

import json

import numpy as np
import pytest
import torch

from fastres import views
from fastres.machine.device import Precision
from fastres.model.network import Architecture, build
from fastres.schedules.types import Optimizer
from fastres.stage import guard
from fastres.stage.optimizer import sgd, start_momentum
from fastres.stage.step import EagerStep
from fastres.train.checkpoint import load_checkpoint
from fastres.views.draw import epoch_order
from tests.support.tiny_runs import train_tiny

CPU = torch.device("cpu")


def step_of(optimizer=None, scaler=None):
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 4)).eval()
    learning = list(network.parameters())
    step = EagerStep(
        network, optimizer(learning) if optimizer else sgd(learning, Optimizer(), 0.01), Precision("fp32", CPU)
    )
    return step, learning


def inputs(*, spoiled: bool = False) -> torch.Tensor:
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x[2, 1, 5, 5] = torch.nan if spoiled else 0.0
    return x.to(memory_format=torch.channels_last)


def state_of(step, learning) -> list[torch.Tensor]:
    momenta = [value["momentum_buffer"] for value in step.optimizer.state.values()]
    return [tensor.detach().clone() for tensor in (*learning, *momenta)]


def fused(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)


@pytest.mark.fault(27)
@pytest.mark.parametrize("way", ["host", "flagged"])
def test_no_update_with_a_bad_loss_nor_after_it(way):
    """The host's branch, and the fused kernel's flag as on a GPU (torch's fused SGD runs on CPUs too)."""
    step, learning = step_of(fused if way == "flagged" else None)
    if way == "flagged":
        step._guarded_update = guard._flagged(step.optimizer)
    labels = torch.arange(4)
    step._update(inputs(), labels)
    before = state_of(step, learning)
    step._update(inputs(spoiled=True), labels)
    step._update(inputs(), labels)  # what comes before the next look at the loss
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(step, learning), strict=True))
    assert step.good_steps() == 1
    step.begin_epoch()
    step._update(inputs(), labels)
    assert not torch.equal(before[0], learning[0]) and step.good_steps() == 1


@pytest.mark.fault(27)
def test_an_optimiser_without_a_flag_gets_no_gradient():
    parameter = torch.nn.Parameter(torch.ones(3))
    update = guard._masked(torch.optim.SGD([parameter], lr=1.0))
    parameter.grad = torch.tensor([torch.nan, torch.inf, 1.0])
    update(torch.tensor(False))
    assert parameter.tolist() == [1.0, 1.0, 1.0]
    parameter.grad = torch.ones(3)
    update(torch.tensor(True))
    assert parameter.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.fault(27)
def test_a_loss_scales_ordinary_overflow_is_no_fault():
    """The first updates of fp16 are often skipped, and the running loss stays finite."""
    step, learning = step_of(fused)
    start_momentum(step.optimizer)
    learning[0].register_hook(lambda gradient: gradient * 2.0**10)  # float32 reaches further than fp16
    step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1000)
    step._guarded_update = guard.guarded_update(step.optimizer, step.scaler)
    before, labels = state_of(step, learning), torch.arange(4)
    step._update(inputs(), labels)
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(step, learning), strict=True))
    for _ in range(20):  # halves the scale each time
        step._update(inputs(), labels)
    assert step.good_steps() == 21 and step._loss_sum.isfinite()
    assert not torch.equal(before[0], learning[0]) and all(p.isfinite().all() for p in state_of(step, learning))


@pytest.mark.slow
@pytest.mark.fault(27)
@pytest.mark.parametrize("bad_value", [float("nan"), float("inf")])
def test_the_run_names_the_batch_and_keeps_the_last_good_checkpoint(packed, tmp_path, monkeypatch, capsys, bad_value):
    """Image 7 turns bad in the second epoch of the second stage."""
    apply, bad = views.apply, 7

    def spoiling(images, rows, ids, plan, **given):
        x = apply(images, rows, ids, plan, **given)
        if isinstance(plan, views.TrainPlan) and (plan.stage, plan.epoch) == (1, 2):
            x[ids == bad] = bad_value
        return x

    monkeypatch.setattr(views, "apply", spoiling)
    folder = tmp_path / "run"
    assert train_tiny(packed, folder, code=5)["status"] == "diverged"
    assert "expected a finite number" in capsys.readouterr().err
    facts = json.loads((folder / "diverged.json").read_text())
    order = epoch_order(40, seed=0, stage=1, epoch=2)
    step = int(np.flatnonzero(order == bad)[0]) // 16
    assert facts["ids"] == order[step * 16 : step * 16 + 16].tolist() and bad in facts["ids"]
    assert (facts["seed"], facts["stage"], facts["epoch"], facts["step"]) == (0, 1, 2, step + 1)
    position, state = load_checkpoint(folder / "checkpoints")
    assert (position.stage, position.epoch, position.step) == (1, 1, 0)
    assert all(value.isfinite().all() for value in state["network"].values())
    assert not (folder / "final.safetensors").exists()
    assert train_tiny(packed, folder, code=5)["status"] == "diverged"  # the same command meets it again
    monkeypatch.undo()
    assert train_tiny(packed, folder)["status"] == "done"


def test_an_update_that_spoils_the_weights_at_an_epochs_end_is_seen_in_validation(packed, tmp_path, capsys):
    """One step an epoch: its loss is finite, the weights after it are useless, and no training loss comes to say so."""
    summary = train_tiny(packed, tmp_path / "run", "--set", "batch_size=1000", "optimizer.lr=1e38", code=5)
    assert summary["status"] == "diverged" and "the validation loss is" in capsys.readouterr().err
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
