"""L2-SP: what fine-tunes is drawn to where its stage began; against a loop by hand, in a run, and resumed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision
from fastres.machine.errors import Preempted, UsageError
from fastres.model.network import Architecture, build
from fastres.model.weights import read_weights
from fastres.schedules.types import Optimizer, Schedule, Stage, ViewSettings
from fastres.stage.pull import Pull
from fastres.stage.stage_step import stage_step
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import stop_after, train_tiny

CPU = Precision("fp32", torch.device("cpu"))
PULL, RATE, DECAY, STEPS = 20.0, 0.002, 0.3, 4
ALL = Stage(name="all", epochs=1, train=("*",), upscale=1, pull=PULL, lr_factors={"conv1.*": 0.5})
PLAN = views.TrainPlan(geometry=Geometry(16, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)


def schedule(stage: Stage, **settings) -> Schedule:
    return Schedule(name="x", stages=(stage,), optimizer=Optimizer(lr=RATE, weight_decay=DECAY), **settings)


def batches(packed) -> list:
    data = Resident(packed, load_manifest(packed), "train", CPU.device)
    return list(data.batches(np.arange(8 * STEPS) % len(data), 8))


def fresh() -> torch.nn.Module:
    torch.manual_seed(0)
    return build(Architecture("resnet18", 8, 4)).to(memory_format=torch.channels_last)


def by_hand(packed, pull: float) -> tuple[dict, float]:
    """torch's SGD on the loss with the penalty written out; the head has weight decay, the rest the pull."""
    network = fresh()
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    kinds = {
        "head": [p for name, p in network.named_parameters() if name.startswith("fc.")],
        "stem": [network.conv1.weight],
        "rest": [p for name, p in network.named_parameters() if not name.startswith(("fc.", "conv1."))],
    }
    groups = [{"params": kinds["head"], "weight_decay": DECAY}]
    groups += [{"params": kinds["stem"], "lr": RATE / 2}, {"params": kinds["rest"]}]
    optimizer, total = torch.optim.SGD(groups, lr=RATE, momentum=0.9, nesterov=True), 0.0
    for batch in batches(packed):
        x = views.apply(batch.images, batch.rows, batch.ids, PLAN)
        loss = functional.cross_entropy(network(x), batch.labels)
        total += loss.item() / STEPS
        for name, parameter in network.named_parameters():
            if not name.startswith("fc."):
                loss = loss + pull / 2 * ((parameter - start[name]) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach() for name, value in network.named_parameters()}, total


@pytest.mark.parametrize("kind", ["eager", "plain"])
def test_a_step_is_that_of_the_penalty_written_out(packed, kind):
    network = fresh()
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    step = stage_step(network, ALL, schedule(ALL, step=kind), CPU)
    for batch in batches(packed):
        step(batch, PLAN, RATE)
    ours = {name: value.detach() for name, value in network.named_parameters()}
    theirs, loss = by_hand(packed, PULL)
    for name, moved in ours.items():
        close = 1e-3 * (theirs[name] - start[name]).norm()
        assert (moved - theirs[name]).norm() <= close + 1e-7, name
    assert step.mean_loss() == pytest.approx(loss, rel=1e-4)  # the penalty is in none of the losses told
    free, _ = by_hand(packed, 0.0)
    one = "layer1.0.conv1.weight"
    assert (free[one] - theirs[one]).norm() > 10e-3 * (theirs[one] - start[one]).norm()  # ten times the tolerance


def test_the_trunk_has_no_weight_decay_and_the_head_keeps_its_own():
    step = stage_step(fresh(), ALL, schedule(ALL), CPU)
    found = {(g["factor"], g["weight_decay"], len(g["params"])) for g in step.optimizer.param_groups}
    assert found == {(1.0, DECAY, 2), (1.0, 0.0, 59), (0.5, 0.0, 1)}


def test_a_pull_where_the_head_learns_alone_is_refused():
    head = Stage(name="fc", epochs=1, train=("fc.*",), upscale=1, pull=PULL)
    with pytest.raises(UsageError, match="stage fc: pull is 20, but only the head learns; expected 0"):
        stage_step(fresh(), head, schedule(head), CPU)
    step = stage_step(fresh(), replace(head, pull=0.0), schedule(head), CPU)
    assert step.pull is None and "pull" not in step.state_dict()
    assert [group["weight_decay"] for group in step.optimizer.param_groups] == [DECAY]


def test_a_stage_without_is_written_as_before():
    """So that a run from before there was a pull is this very run."""
    plain, pulled = (schedule(replace(ALL, pull=pull)).to_dict()["stages"][0] for pull in (0.0, 0.5))
    assert "pull" not in plain and "whole" not in plain and pulled["pull"] == 0.5
    assert set(plain) == {"name", "epochs", "train", "upscale", "surgery", "bn", "lr", "lr_factors"}


def test_a_pull_below_zero_is_refused():
    with pytest.raises(UsageError, match="pull of stage x is -1, expected 0 or more"):
        Stage(name="x", epochs=1, train=("*",), upscale=1, pull=-1)


@pytest.mark.slow
def test_stopped_and_resumed_it_pulls_to_where_the_stage_began(packed, tmp_path, monkeypatch):
    """Not to where the run was resumed: the same bits as in one go, which another pull does not give."""
    words = ("--precision", "fp32", "--set", "stages.3.pull=5", "batch_size=8")
    whole = train_tiny(packed, tmp_path / "whole", *words)
    train_tiny(packed, tmp_path / "free", *words[:-2], "stages.3.pull=0", words[-1])
    steps = sum(stage["epochs"] for stage in whole["stages"]) * 5
    with monkeypatch.context() as patch:
        stop_after(patch, steps - 3)
        stopped = train_tiny(packed, tmp_path / "run", *words, code=Preempted.exit_code)
    assert stopped["status"] == "preempted"
    train_tiny(packed, tmp_path / "run", *words)
    ends = {name: read_weights(tmp_path / name / "final.safetensors") for name in ("whole", "run", "free")}
    assert all(torch.equal(ends["whole"][key], ends["run"][key]) for key in ends["whole"])
    assert not torch.equal(ends["whole"]["layer1.0.conv1.weight"], ends["free"]["layer1.0.conv1.weight"])


def test_a_scaled_loss_has_a_scaled_pull():
    parameter = torch.nn.Parameter(torch.ones(3))
    pull, scaler = Pull([parameter], 0.5), torch.amp.GradScaler("cpu", init_scale=64.0)
    with torch.no_grad():
        parameter += torch.tensor([1.0, 0.0, -2.0])
    scaler.scale((parameter * 3).sum()).backward()
    pull.add_gradient(scaler)
    assert parameter.grad.tolist() == [64 * 3.5, 64 * 3.0, 64 * 2.0]
