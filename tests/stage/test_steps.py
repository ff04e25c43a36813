"""Step objects: their names, buffers and state; what a machine cannot run is refused in one sentence.

That each kind makes the plain updates: test_step_paths.py.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision, choose_device, choose_precision
from fastres.machine.errors import MachineError, UsageError
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.schedules import types as schedule_types
from fastres.schedules.types import Optimizer, Stage, ViewSettings
from fastres.stage.captured import check_capture
from fastres.stage.optimizer import sgd
from fastres.stage.stage_step import STEPS, step_kind
from fastres.stage.step import EagerStep, PlainStep
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import train_tiny

CPU = Precision("fp32", torch.device("cpu"))
STAGES = {"fc": (("fc.*",), "7x7", 4), "conv1": (("conv1.*",), "3x3", 1), "all": (("*",), "3x3", 1)}


def train(packed, kind: str, stage: str, steps: int = 4, precision: Precision = CPU):
    """A few steps of one kind; the learned tensors after them, and the mean loss."""
    patterns, stem, upscale = STAGES[stage]
    torch.manual_seed(0)
    device = precision.device
    network = build(Architecture("resnet18", 8, 4, stem)).to(device, memory_format=torch.channels_last)
    learning = set_trainable(network, patterns)
    training_mode(network, Stage(name=stage, epochs=1, train=patterns, upscale=upscale))
    step = STEPS[kind](network, sgd(learning, Optimizer(lr=0.001), 0.001), precision)
    data = Resident(packed, load_manifest(packed), "train", device)
    plan = views.TrainPlan(
        geometry=Geometry(16, upscale), settings=ViewSettings(), seed=0, stage=0, epoch=1, dtype=precision.dtype
    )
    for batch in data.batches(np.arange(8 * steps - 3), 8):  # the last batch is partial
        step(batch, plan, 0.001)
    return [p.detach().cpu() for p in learning], step.mean_loss()


def assert_same(ours, theirs, relative: float) -> None:
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert (a - b).norm() <= relative * b.norm()
    assert ours[1] == pytest.approx(theirs[1], rel=relative)


def test_names_agree():
    assert {"auto", *STEPS} == set(schedule_types.STEPS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
@pytest.mark.parametrize(("name", "relative"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize("stage", STAGES)
def test_captured_is_eager_to_rounding(packed, stage, name, relative):
    precision = Precision(name, torch.device("cuda"))
    assert_same(train(packed, "captured", stage, 8, precision), train(packed, "eager", stage, 8, precision), relative)


@pytest.mark.fault(18)
def test_captured_is_refused_where_it_cannot_run(packed):
    with pytest.raises(MachineError, match="step captured: needs a GPU.*--set step=eager"):
        train(packed, "captured", "fc")
    gpu = torch.device("cuda", 0)
    for arguments, words in (
        (("torch", Precision("fp16", gpu), "resident"), "fp16, whose loss scale the host decides"),
        (("apex", Precision("bf16", gpu), "resident"), "drop optimizer.impl=apex"),
        (("torch", Precision("bf16", gpu), "ffcv"), "--engine ffcv moves them; use --engine resident"),
        (("torch", Precision("fp32", gpu), "resident", "torch"), "found views.impl=torch.*views.impl=auto or"),
        (("torch", Precision("fp32", gpu), "dali"), "--engine dali moves them; use --engine resident"),
    ):
        with pytest.raises(UsageError, match=words):
            check_capture(*arguments)
    check_capture("torch", Precision("bf16", gpu), "resident")


def test_a_run_that_cannot_be_captured_leaves_no_folder(packed, tmp_path):
    train_tiny(packed, tmp_path / "run", "--set", "step=captured", "--device", "cpu", code=4)
    assert not (tmp_path / "run").exists()


def test_inputs_are_written_into_one_buffer_per_batch_size(packed):
    """The kernel writes where the last batch lay; a partial batch has its own buffer."""
    seen = []

    class Watching(EagerStep):
        def _update(self, x, labels):
            seen.append((len(labels), x.data_ptr()))
            super()._update(x, labels)

    STEPS["watching"] = Watching
    try:
        train(packed, "watching", "fc")
    finally:
        del STEPS["watching"]
    assert len({pointer for size, pointer in seen if size == 8}) == 1 and len(seen) == 4
    assert {size for size, _ in seen} == {8, 5}


def test_mixed_views_have_the_labels_of_both(packed):
    """What is learned from is the mixture of both images' labels, in the views' own proportion; an odd one out keeps
    its own. The loss is the weighted sum of both cross entropies."""
    data = Resident(packed, load_manifest(packed), "train", CPU.device)
    network = build(Architecture("resnet18", 8, 4, "3x3"))
    learning = set_trainable(network, ("*",))
    step = EagerStep(network, sgd(learning, Optimizer(lr=0.001), 0.001), CPU)
    settings = ViewSettings(mixup=0.4, cutmix=1.0, mixing=0.9)
    plan = views.TrainPlan(geometry=Geometry(16, 1), settings=settings, seed=0, stage=0, epoch=1)
    mixed = 0
    for batch in data.batches(np.arange(29), 10):
        x, soft = step._examples(batch, plan)
        own = torch.ones(len(batch.ids))
        pairs = len(own) // 2
        own[: 2 * pairs] = torch.from_numpy(plan.mixtures(batch.ids.numpy()).own.repeat(2)).float()
        partner = torch.arange(len(own)) ^ 1
        partner = batch.labels[torch.where(partner < len(own), partner, partner - 1)]
        logits = torch.randn(len(own), 4)
        one, other = (functional.cross_entropy(logits, labels, reduction="none") for labels in (batch.labels, partner))
        assert torch.allclose(step.loss(logits, soft), (own * one + (1 - own) * other).mean(), atol=1e-6)
        assert torch.equal(x, views.apply(batch.images, batch.rows, batch.ids, plan))
        mixed += int((own < 1).sum())
    assert mixed > 10 and own[-1] == 1
    assert step._examples(batch, replace(plan, settings=ViewSettings()))[1] is batch.labels


def test_auto_is_a_step():
    assert step_kind("auto") is EagerStep and step_kind("plain") is PlainStep


def by_hand(parameter, gradients, lr, momentum, decay):
    """Nesterov SGD with NumPy, as fb.resnet.torch states it."""
    w, v = parameter.copy(), np.zeros_like(parameter)
    for g in gradients:
        g = g + decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v)
    return w


def test_sgd_follows_the_rule_written_by_hand():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 3)), rng.normal(size=(6, 5, 3))
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = sgd([parameter], Optimizer(lr=0.1, weight_decay=0.01), 0.1)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), by_hand(start, gradients, 0.1, 0.9, 0.01), rtol=1e-12)


def test_apex_is_used_where_it_is_and_refused_with_its_remedy_elsewhere():
    parameter = torch.nn.Parameter(torch.ones(3))
    try:
        import amp_C  # noqa: F401

        usable = torch.cuda.is_available()
    except ImportError:
        usable = False
    if not usable:
        with pytest.raises(MachineError, match="NVIDIA/apex"):
            sgd([parameter], Optimizer(impl="apex"), 0.1)
        return
    train_with_apex()
    start, gradients = torch.randn(5, 3), torch.randn(6, 5, 3)
    ends = []
    for impl in ("torch", "apex"):
        parameter = torch.nn.Parameter(start.clone().cuda())
        optimizer = sgd([parameter], Optimizer(impl=impl), 0.1)
        for gradient in gradients:
            parameter.grad = gradient.clone().cuda()
            optimizer.step()
        ends.append(parameter.detach())
    torch.testing.assert_close(*ends)


def train_with_apex() -> None:
    """A step of ours asks more of an optimiser than its step()."""
    network, device = build(Architecture("resnet18", 8, 4)), torch.device("cuda")
    network.to(device, memory_format=torch.channels_last)
    learning = set_trainable(network, ("*",))
    training_mode(network, Stage(name="all", epochs=1, train=("*",), upscale=1))
    step = EagerStep(network, sgd(learning, Optimizer(impl="apex"), 0.01), Precision("fp32", device))
    x = torch.randn(4, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    before = network.conv1.weight.detach().clone()
    for _ in range(2):
        step._update(x, torch.tensor([0, 1, 2, 3], device=device))
    assert not torch.equal(network.conv1.weight, before) and step.good_steps() == 2


def test_checkpoint_of_one_step_continues_in_another(packed):
    """State moves between kinds of step: same updates, so the same state."""
    network = build(Architecture("resnet18", 8, 4))
    learning = set_trainable(network, ("*",))
    training_mode(network, Stage(name="all", epochs=1, train=("*",), upscale=1))
    first = EagerStep(network, sgd(learning, Optimizer(), 0.01), CPU)
    x = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    first._update(x, torch.tensor([0, 1, 2, 3]))
    state = copy.deepcopy(first.state_dict())
    weights = copy.deepcopy(network.state_dict())
    first._update(x, torch.tensor([3, 2, 1, 0]))
    expected = copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    second = PlainStep(network, sgd(learning, Optimizer(), 0.01), CPU)
    second.load_state_dict(state)
    second._update(x, torch.tensor([3, 2, 1, 0]))
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)
    network.load_state_dict(weights)
    PlainStep(network, sgd(learning, Optimizer(), 0.01), CPU)._update(x, torch.tensor([3, 2, 1, 0]))
    assert (network.fc.weight - expected["fc.weight"]).abs().max() > 1e-4, "without its momentum it goes elsewhere"


@pytest.mark.fault(18)
def test_precision_choices(monkeypatch):
    from fastres.machine import device as precision

    cpu = torch.device("cpu")
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert choose_precision("auto", cpu).name == "bf16"
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert choose_precision("auto", cpu).name == "fp32" and choose_precision("fp32", cpu).dtype == torch.float32
    with pytest.raises(MachineError, match="fp16"):
        choose_precision("fp16", cpu)
    with pytest.raises(UsageError, match="half"):
        choose_precision("half", cpu)
    with pytest.raises(MachineError if not torch.cuda.is_available() else UsageError):
        choose_device("cuda:0" if not torch.cuda.is_available() else "cuda:x")
    with pytest.raises(UsageError):
        choose_device("abacus")
