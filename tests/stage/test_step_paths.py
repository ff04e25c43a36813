"""Ten steps of each kind equal ten plain ones, for every stage the fast paths are made for, under each `bn` rule."""

import copy
from dataclasses import replace

import pytest
import torch

from fastres import views
from fastres.data.batch import Batch
from fastres.machine.device import Precision
from fastres.model import onednn
from fastres.model.fold import compiled
from fastres.model.freeze import batch_norms, recalibrate
from fastres.model.network import Architecture, build
from fastres.schedules.types import Optimizer, Schedule, Stage, ViewSettings
from fastres.stage.stage_step import STEPS, stage_step
from fastres.views.geometry import Geometry

STAGES = {
    "fc": Stage(name="fc", epochs=1, train=("fc.*",), upscale=4),
    "conv1": Stage(name="conv1", epochs=1, train=("conv1.*",), upscale=1),
    "full": Stage(name="full", epochs=1, train=("*",), upscale=4),
}
RULES = ("frozen", "recalibrated", "batch")
RATE = 0.001
BATCH, IMAGES = 4, 39  # ten steps
CPU = Precision("fp32", torch.device("cpu"))


def lived_in(stem: str):
    """A network whose BatchNorms are not the identity."""
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 6, stem))
    for norm in batch_norms(network):
        torch.nn.init.normal_(norm.running_mean, 0, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 2)
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.2)
    return network


def ten_steps(kind: str, stage: Stage):
    """state_dict before and after ten steps, the last of a partial batch; the mean loss; names of what learned."""
    network = lived_in("7x7" if stage.upscale == 4 else "3x3")
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (IMAGES, 16, 16, 3), dtype=torch.uint8, generator=generator)
    ids, labels = torch.arange(IMAGES), torch.randint(0, 6, (IMAGES,), generator=generator)
    plan = views.TrainPlan(
        geometry=Geometry(16, stage.upscale), settings=ViewSettings(), seed=0, stage=0, epoch=1, dtype=torch.float32
    )
    if stage.bn == "recalibrated":
        recalibrate(network, [views.apply(images, ids, ids, plan)], CPU.autocast)
    start = copy.deepcopy(network.state_dict())
    schedule = Schedule(name="ten", stages=(stage,), step=kind, optimizer=Optimizer(lr=RATE))
    step = stage_step(network, stage, schedule, CPU)
    for rows in ids.split(BATCH):
        step(Batch(images, rows, labels[rows], rows), plan, RATE)
    learned = {name for name, p in network.named_parameters() if p.requires_grad}
    return start, network.state_dict(), step.mean_loss(), learned


def assert_the_plain_way(kind: str, stage: Stage, relative: float = 1e-5) -> None:
    """What is frozen bitwise; what learns, and statistics that move, to `relative` of their size."""
    start, plain, loss, learned = ten_steps("plain", stage)
    _, ours, our_loss, our_learned = ten_steps(kind, stage)
    assert our_learned == learned and our_loss == pytest.approx(loss, rel=relative)
    moving = {n for n in plain if "running" in n and (stage.bn == "batch" or "*" in stage.train)}
    for name, wanted in plain.items():
        if name in learned or name in moving:
            assert not torch.equal(ours[name], start[name]), name
            assert (ours[name] - wanted).norm() <= relative * wanted.norm(), name
        elif name.endswith("num_batches_tracked"):
            assert torch.equal(ours[name], wanted), name
        else:
            assert torch.equal(ours[name], start[name]) and torch.equal(wanted, start[name]), name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("stage", STAGES)
def test_eager_is_the_plain_way(stage, rule):
    assert_the_plain_way("eager", replace(STAGES[stage], bn=rule))


@pytest.mark.parametrize(
    ("stage", "rule"), [("fc", "frozen"), ("fc", "batch"), ("conv1", "frozen"), ("full", "frozen")]
)
def test_padded_is_the_plain_way(stage, rule, monkeypatch):
    """Images of four channels into the first layer as folded, plain and functional."""
    seen, apply = [], views.apply
    monkeypatch.setattr(
        views, "apply", lambda *given, **named: seen.append(given[3].channels) or apply(*given, **named)
    )
    assert_the_plain_way("padded", replace(STAGES[stage], bn=rule))
    assert seen == [3] * 10 + [4] * 10


def test_every_padded_kind_sees_four_channels():
    plan = views.TrainPlan(geometry=Geometry(16, 1), settings=ViewSettings(), seed=0, stage=0, epoch=1)
    for name, kind in STEPS.items():
        seen = kind.seen(kind.__new__(kind), plan)
        assert seen.channels == (4 if name.endswith("padded") else 3)
        assert seen.settings.impl == ("triton" if "captured" in name else "auto")


def test_eager_is_the_plain_way_without_onednns_operators(monkeypatch):
    monkeypatch.setattr(onednn, "usable", lambda dtype: False)
    assert_the_plain_way("eager", STAGES["fc"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("stage", "rule"), [("fc", "recalibrated"), ("conv1", "batch"), ("full", "frozen")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_compiled_is_the_plain_way(stage, rule):
    """A folded prefix, batch statistics behind the first layer, everything: each is half a minute of compiling."""
    from torch._dynamo.utils import counters

    before = counters["frames"]["ok"]
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        assert_the_plain_way("compiled", replace(STAGES[stage], bn=rule))
    assert counters["frames"]["ok"] > before, "something was compiled, not run eagerly"


class Form(torch.nn.Linear):
    """Stands in for StageNetwork: one forward that many objects share."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).relu()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_every_stage_is_compiled_however_many_there_are(monkeypatch):
    """Past Dynamo's limit of compilations a frame runs eagerly, without an error: here 12 forms in one process."""
    from torch._dynamo.utils import counters

    compile_it = torch.compile
    monkeypatch.setattr(torch, "compile", lambda form, **options: compile_it(form, backend="eager", **options))
    for classes in range(1, 13):
        form, before = compiled(Form(4, classes)), counters["frames"]["ok"]
        for size in (2, 1):
            assert form(torch.ones(size, 4)).shape == (size, classes)
        assert counters["frames"]["ok"] == before + 2, f"form {classes} ran eagerly"
