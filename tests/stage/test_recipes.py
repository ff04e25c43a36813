"""Rates by layer, one cycle, smoothed labels, averaged weights: each against its rule, in every step, and resumed."""

import copy
import json
import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision
from fastres.machine.errors import UsageError
from fastres.model.freeze import set_trainable
from fastres.model.network import Architecture, build
from fastres.model.reading import read_weights
from fastres.schedules.types import OneCycle, Schedule, Stage, ViewSettings
from fastres.stage.average import NoAverage, RunningAverage, weight_average
from fastres.stage.learning_rate import OneCycleRate
from fastres.stage.optimizer import groups_of
from fastres.stage.rehearsal import rehearse
from fastres.stage.stage_step import learning_tensors, stage_step
from fastres.stage.step import EagerStep
from fastres.track.log import read_log
from fastres.train import command as train_module
from fastres.views.geometry import Geometry
from tests.conftest import TINY_FILE
from tests.stage.test_rehearsal import with_stage
from tests.support.tiny_runs import train_tiny

CPU = Precision("fp32", torch.device("cpu"))
ALL = Stage(name="all", epochs=1, train=("*",), upscale=1, lr_factors={"conv1.*": 0.5, "layer*": 0.25, "fc.bias": 2.0})
MODERN = ["lr_policy=OneCycle", "label_smoothing=0.1", "ema=0.9", "stages.1.lr_factors=fc.*:1,layer4.*:0.5,*:0.1"]


def run(packed, folder, *settings, code=0):
    return train_tiny(packed, folder, "--precision", "fp32", "--set", *settings, code=code)


def test_the_first_pattern_that_matches_gives_the_factor():
    network = build(Architecture("resnet18", 8, 4))
    set_trainable(network, ALL.train)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(p)]: group["factor"] for group in groups_of(network, ALL) for p in group["params"]}
    assert found.keys() == set(names.values())
    assert (found["conv1.weight"], found["layer2.0.conv1.weight"], found["fc.bias"]) == (0.5, 0.25, 2.0)
    assert (found["fc.weight"], found["bn1.weight"]) == (1.0, 1.0)


@pytest.mark.parametrize("factors", [{"head.*": 2.0}, {"conv1.*": 0.5}, {"*": 1.0, "fc.*": 0.5}])
def test_a_pattern_that_decides_over_nothing_is_refused_before_anything_starts(factors):
    """Unknown, frozen in this stage, or hidden behind an earlier one."""
    with pytest.raises(UsageError, match="decides over no learning parameter"):
        rehearse(with_stage(0, lr_factors=factors), 4, 16)


@pytest.mark.parametrize("kind", ["eager", "plain", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.timeout(900)
def test_each_group_moves_by_its_own_rate(packed, kind):
    """One step from the same start with and without factors: every tensor's move is scaled by its factor exactly
    (the first step is rate * (1 + momentum) * gradient), in units of what float32 resolves."""
    moves, precision = [], CPU
    for stage, step in ((ALL, kind), (Stage(name="all", epochs=1, train=("*",), upscale=1), "plain")):
        torch.manual_seed(0)
        network = build(Architecture("resnet18", 8, 4)).to(memory_format=torch.channels_last)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        step = stage_step(network, stage, Schedule(name="x", stages=(stage,), step=step), precision)
        data = Resident(packed, load_manifest(packed), "train", precision.device)
        plan = views.TrainPlan(geometry=Geometry(16, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)
        for batch in data.batches(np.arange(8), 8):
            step(batch, plan, 0.01)
        assert learning_tensors(step) == 62
        moves.append({name: (p.detach() - before[name]) for name, p in network.named_parameters()})
    with_factors, without = moves
    for name, factor in (("conv1.weight", 0.5), ("layer2.0.conv1.weight", 0.25), ("fc.bias", 2.0), ("fc.weight", 1.0)):
        torch.testing.assert_close(with_factors[name], factor * without[name], rtol=1e-3, atol=1e-7)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_captured_follows_the_factors_too(packed):
    ends, precision = [], Precision("fp32", torch.device("cuda"))
    for kind in ("captured", "eager"):
        torch.manual_seed(0)
        network = build(Architecture("resnet18", 8, 4)).cuda().to(memory_format=torch.channels_last)
        step = stage_step(network, ALL, Schedule(name="x", stages=(ALL,), step=kind, label_smoothing=0.1), precision)
        data = Resident(packed, load_manifest(packed), "train", precision.device)
        plan = views.TrainPlan(geometry=Geometry(16, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)
        for number, batch in enumerate(data.batches(np.arange(40), 8)):
            step(batch, plan, 0.001 * (number + 1))
        ends.append([p.detach() for p in network.parameters()])
    for a, b in zip(*ends, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


def test_label_smoothing_is_in_the_loss():
    network = build(Architecture("resnet18", 8, 4))
    stage = Stage(name="fc", epochs=1, train=("fc.*",), upscale=1)
    step = stage_step(network, stage, Schedule(name="x", stages=(stage,), label_smoothing=0.2), CPU)
    logits, labels = torch.randn(6, 4), torch.arange(6) % 4
    target = 0.8 * functional.one_hot(labels, 4) + 0.2 / 4
    torch.testing.assert_close(step.loss(logits, labels), -(target * logits.log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize("steps,warmup", [(50, 0.3), (7, 0.5), (1000, 0.1)])
def test_one_cycle_is_torchs(steps, warmup):
    policy = OneCycle(warmup=warmup, start=0.04, end=1e-4)
    ours = OneCycleRate(policy, 0.5, steps)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.5, total_steps=steps, pct_start=warmup, div_factor=25, final_div_factor=400, cycle_momentum=False
    )
    for step in range(steps):
        assert ours.at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step + 1 < steps:
            optimizer.step()
            theirs.step()
    assert ours.at(steps - 1) == pytest.approx(0.5e-4)


@pytest.mark.parametrize("steps,warmup", [(1, 0.3), (2, 0.3), (3, 0.0)])
def test_one_cycle_of_very_few_steps_stays_between_its_ends(steps, warmup):
    rate = OneCycleRate(OneCycle(warmup=warmup), 1.0, steps)
    rates = [rate.at(step) for step in range(steps)]
    assert all(0 < r <= 1 for r in rates) and rates == sorted(rates, reverse=True)


def test_average_follows_its_formula_and_leaves_the_network_alone():
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 4))
    set_trainable(network, ("fc.*",))
    average, by_hand = weight_average(network, 0.5), network.fc.weight.detach().clone()
    for t in range(1, 9):
        with torch.no_grad():
            network.fc.weight += torch.randn_like(network.fc.weight)
            network.bn1.running_mean += 1.0
        weights = network.fc.weight.detach().clone()
        average.update()
        decay = min(0.5, (1 + t) / (10 + t))
        by_hand = decay * by_hand + (1 - decay) * weights
        assert torch.equal(network.fc.weight, weights)
    torch.testing.assert_close(average.network.fc.weight, by_hand)
    assert 0 < average.network.bn1.running_mean[0] < 8
    resumed = copy.deepcopy(average.network)  # what a checkpoint has as its network
    again = weight_average(resumed, 0.5)
    again.load_state_dict(copy.deepcopy(average.state_dict()))
    assert again.steps == 8 and torch.equal(again.network.fc.weight, average.network.fc.weight)
    assert torch.equal(resumed.fc.weight, network.fc.weight)
    average.hand_over()
    assert torch.equal(network.fc.weight, average.network.fc.weight)
    assert isinstance(weight_average(network, 0.0), NoAverage) and isinstance(average, RunningAverage)


@pytest.fixture(scope="module")
def whole(packed, tmp_path_factory):
    """A run with everything, and the head's weight before and after every step of its last stage."""
    folder, heads, original = tmp_path_factory.mktemp("modern") / "run", [], EagerStep.__call__

    def recording(self, batch, plan, lr):
        if plan.stage == 3:
            head = next(p for g in self.optimizer.param_groups for p in g["params"] if p.shape == (4, 64))
            heads.extend([head.detach().clone()] if not heads else [])
        original(self, batch, plan, lr)
        if plan.stage == 3:
            heads.append(head.detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EagerStep, "__call__", recording)
        summary = run(packed, folder, *MODERN)
    return folder, summary, heads


@pytest.mark.slow
def test_the_average_is_what_is_validated_and_kept(whole):
    folder, summary, heads = whole
    average = heads[0]
    for t, head in enumerate(heads[1:], start=1):
        decay = min(0.9, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * head
    kept = read_weights(folder / "final.safetensors")["fc.weight"]
    torch.testing.assert_close(kept, average)
    assert len(heads) == 7 and not torch.allclose(kept, heads[-1])
    last = [r for r in read_log(folder / "log.jsonl") if r["event"] == "epoch"][-1]
    assert last["val_top1_err"] == summary["errors"]["expsum"]["centre"]["top1"]


@pytest.mark.slow
def test_the_loop_uses_all_of_it(whole):
    """Rates of a one-cycle end at a ten-thousandth in every stage."""
    epochs = [r for r in read_log(whole[0] / "log.jsonl") if r["event"] == "epoch"]
    ends = [r["lr"] for r in epochs if r["epoch"] == {"fc": 1, "all": 2, "conv1": 1, "all-14": 2}[r["stage_name"]]]
    assert ends == pytest.approx([5e-6, 5e-6, 5e-6, 2e-6])


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 6, 16])
def test_modern_resumes_to_the_same_bits(packed, tmp_path, whole, monkeypatch, steps):
    """Stopped inside a stage with groups, between its epochs, and in the last stage."""
    original, done = EagerStep.__call__, 0

    def counting(self, *arguments):
        nonlocal done
        original(self, *arguments)
        done += 1
        if done == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(EagerStep, "__call__", counting)
        run(packed, tmp_path / "run", *MODERN, code=75)
    assert run(packed, tmp_path / "run", *MODERN)["errors"] == whole[1]["errors"]
    weights = [read_weights(f / "final.safetensors") for f in (whole[0], tmp_path / "run")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_dry_run_shows_it(packed, tmp_path, capsys):
    arguments = [
        "--schedule",
        str(TINY_FILE),
        "--data",
        str(packed),
        "--run-dir",
        str(tmp_path / "run"),
        "--dry-run",
        "--json",
        "--set",
        *MODERN,
    ]
    assert train_module.main(arguments) == 0
    schedule = json.loads(capsys.readouterr().out)["schedule"]
    assert schedule["lr_policy"]["kind"] == "OneCycle" and schedule["ema"] == 0.9
    assert schedule["stages"][1]["lr_factors"] == {"fc.*": 1.0, "layer4.*": 0.5, "*": 0.1}
