"""`step=auto`: the trials, what is remembered of them, and who decides (that: test_decide.py)."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError
from fastres.machine.processes.world import World
from fastres.model.network import Architecture, build
from fastres.schedules.loading import load_schedule
from fastres.schedules.types import Optimizer, Schedule, Stage
from fastres.stage import stage_run
from fastres.stage.choosing import choose as choosing
from fastres.stage.choosing import remembered
from fastres.stage.choosing.choose import Choice, choose, legal, tried
from fastres.stage.choosing.decide import Trial, decide
from fastres.stage.choosing.trial import _first_line, try_out
from fastres.stage.setting import Setting
from fastres.stage.stage_step import STEPS, stage_step
from fastres.stage.step import EagerStep
from fastres.train.checkpoint import load_checkpoint
from fastres.views import triton_blocks
from tests.conftest import TINY_FILE
from tests.support.tiny_runs import stop_after, train_tiny

CPU = Precision("fp32", torch.device("cpu"))
EAGER = Trial(0.010, 0.5)


@pytest.fixture
def setting(packed, tmp_path):
    """A stage of everything at width 8; the packed folder is its own, so that it may keep trials."""
    folder = tmp_path / "packed"
    folder.mkdir()
    manifest = load_manifest(packed)
    splits = [Resident(packed, manifest, split, CPU.device) for split in ("train", "val")]
    stage = Stage(name="all", epochs=1, train=("*",), upscale=1)
    schedule = Schedule(name="t", stages=(stage,), width=8, weights=None, batch_size=16, optimizer=Optimizer(lr=0.1))
    return Setting(schedule, 0, folder, manifest, *splits, CPU, World(CPU.device))


def network_and_plan(setting):
    torch.manual_seed(0)
    network = build(Architecture("resnet18", 8, 4, "3x3")).to(memory_format=torch.channels_last)
    stage = setting.schedule.stages[0]
    return network, stage, stage_run.StageRun(setting, network, 0).plan(-1)


def make_over(network, setting, kind="eager"):
    return stage_step(network, setting.schedule.stages[0], setting.schedule, CPU, STEPS[kind])


def test_a_trial_changes_nothing(setting):
    network, _, plan = network_and_plan(setting)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    chance = torch.random.get_rng_state()
    (batch,) = setting.train.batches(torch.arange(16).numpy(), 16)

    def make(kind):
        torch.rand(3)
        return make_over(network, setting)

    trial = try_out(network, "eager", make, batch, plan)
    assert trial.step_s > 0 and trial.cold_s > 0 and trial.fault is None
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(chance, torch.random.get_rng_state()) and all(p.grad is None for p in network.parameters())


class Failing(EagerStep):
    """Changes weights, then fails as torch does."""

    def _update(self, x, labels):
        super()._update(x, labels)
        with torch.no_grad():
            next(iter(self.optimizer.param_groups[0]["params"])).add_(1)
        raise self.error


def test_of_two_faults_the_first_is_told():
    """torch raises another one as it leaves a recording that failed."""
    last = RuntimeError("capture ended")
    last.__context__ = ValueError("the cause\nand more")
    assert _first_line(last) == "the cause"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory\n(of many words)"), MachineError("no GPU")])
def test_a_kind_that_fails_is_told_and_put_back(setting, error, monkeypatch):
    monkeypatch.setattr(Failing, "error", error, raising=False)
    network, _, plan = network_and_plan(setting)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    (batch,) = setting.train.batches(torch.arange(16).numpy(), 16)

    def make(_):
        return stage_step(network, setting.schedule.stages[0], setting.schedule, CPU, Failing)

    trial = try_out(network, "captured", make, batch, plan)
    assert trial.step_s is None and trial.fault == str(error).splitlines()[0]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    with pytest.raises(type(error)):
        try_out(network, "eager", make, batch, plan)


def test_the_second_run_does_not_measure_again(setting, monkeypatch):
    made = []
    measured = {"eager": EAGER, "plain": Trial(0.005, 0.1)}
    monkeypatch.setattr(choosing, "try_out", lambda network, kind, *_: made.append(kind) or measured[kind])
    network, stage, plan = network_and_plan(setting)
    choice = tried(setting, network, stage, plan, 10**6, ["plain"])
    assert choice.kind == "plain" and re.fullmatch(r"plain: 2.00 times eager, \d s to find out", choice.words)
    assert tried(setting, network, stage, plan, 10**6, ["plain"]).words.endswith("as measured before")
    assert made == ["eager", "plain"]
    assert tried(setting, network, stage, plan, 10, ["plain"]).kind == "eager"  # few steps left: their cost decides
    other = replace(stage, train=("fc.*",))
    assert tried(setting, network, other, plan, 10, ["plain"]).kind == "eager"
    assert made == ["eager", "plain", "eager"]  # another stage, too short for a second kind
    assert tried(setting, network, other, plan, 10**6, ["plain"]).kind == "plain"
    assert made == ["eager", "plain", "eager", "plain"]  # and a long one tries what was not worth it


@pytest.mark.parametrize(
    ("step_s", "wanted"),
    [
        ({"captured": 0.005, "captured-padded": 0.004}, "captured-padded"),
        ({"captured": 0.005, "captured-padded": 0.006}, "captured"),
        ({"captured": 0.012, "padded": 0.009}, "padded"),
        ({"captured": 0.012, "padded": None}, "eager"),
    ],
)
def test_the_fastest_kind_is_tried_with_padded_images(setting, monkeypatch, step_s, wanted):
    made = []

    def measured(network, kind, *_):
        made.append(kind)
        seconds = {"eager": EAGER.step_s, **step_s}[kind]
        return Trial(seconds, 0.1, None if seconds else "out of memory")

    monkeypatch.setattr(choosing, "try_out", measured)
    network, stage, plan = network_and_plan(setting)
    assert tried(setting, network, stage, plan, 10**6, ["captured"]).kind == wanted
    assert made == ["eager", *step_s]
    assert tried(setting, network, stage, plan, 10**6, ["captured"]).kind == wanted
    assert [kind for kind in made[2:] if step_s.get(kind)] == made[2:3] * (step_s.get(made[2]) is not None)


def test_who_decides(setting, monkeypatch):
    """A named kind is taken; a CPU, several processes and asking for the same bits are eager; a GPU tries."""
    monkeypatch.setattr(choosing, "tried", lambda *arguments: Choice("tried", " ".join(arguments[-1])))
    network, stage, plan = network_and_plan(setting)
    gpu = replace(setting, precision=Precision("bf16", torch.device("cuda", 0)))

    def kind(setting):
        return choose(setting, network, stage, plan, 100)

    assert kind(setting) == Choice("eager")
    assert kind(gpu) == Choice("tried", "captured fused captured-fused compiled")
    assert kind(replace(gpu, schedule=replace(gpu.schedule, step="plain"))) == Choice("plain")
    assert kind(replace(gpu, world=SimpleNamespace(size=2))) == Choice("eager")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert kind(gpu) == Choice("eager")
    assert legal(replace(gpu, precision=Precision("fp16", torch.device("cuda", 0))), "triton") == ["fused", "compiled"]
    assert legal(gpu, "torch") == ["fused", "compiled"]


@pytest.mark.slow
def test_a_run_that_tries_ends_as_one_that_does_not(packed, tmp_path, monkeypatch, capsys):
    """Eager beside plain for real: the same weights and log in the end, and a resume takes what its stage began as."""
    train_tiny(packed, tmp_path / "without")
    own = load_schedule(str(TINY_FILE))
    assert own.step == "auto"
    calls = []

    def trying(setting, *arguments):
        calls.append(arguments[1].name)
        folder = replace(setting, packed=tmp_path)  # the packed folder is shared by all tests
        kind, words = tried(folder, *arguments, ["plain"])
        return Choice("eager", f"{words}, found {kind}")

    monkeypatch.setattr(stage_run, "choose", trying)
    monkeypatch.setattr(choosing, "worth_trying", lambda *_: True)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        train_tiny(packed, tmp_path / "with", code=75)
    _, state = load_checkpoint(tmp_path / "with" / "checkpoints")
    assert state["stage"]["kind"] == "eager"
    train_tiny(packed, tmp_path / "with")
    names = [stage.name for stage in own.stages]
    assert calls == names, "each stage once, the resumed one not again"
    assert ", found " in capsys.readouterr().err
    weights = [(tmp_path / run / "final.safetensors").read_bytes() for run in ("without", "with")]
    tensors = [w[8 + int.from_bytes(w[:8], "little") :] for w in weights]
    assert tensors[0] == tensors[1]
    stages = [json.loads(line) for line in (tmp_path / "with" / "log.jsonl").read_text().splitlines()]
    assert {record["step"] for record in stages if record["event"] == "stage"} == {"eager"}


@pytest.mark.slow
def test_compiled_is_tried_for_real(setting, monkeypatch):
    monkeypatch.setattr(choosing, "worth_trying", lambda *_: True)
    network, stage, plan = network_and_plan(setting)
    stage = replace(stage, train=("fc.*",))  # forward only: a quarter of the time to compile
    choice = tried(setting, network, stage, plan, 10**9, ["compiled"])
    kept = remembered.recall(
        setting.packed / remembered.PLACE, remembered.key(network, stage, setting.schedule, plan.geometry, CPU)
    )
    assert set(kept) - {"padded"} == {"eager", "compiled"} and kept["compiled"].cold_s > kept["eager"].cold_s
    assert choice.kind == decide(kept, 10**9), "the choice is of the trials that were kept, whichever was faster"


def test_the_views_that_a_kind_sees_are_tuned(setting, monkeypatch):
    """Before it is tried, and when a stage that began as it is resumed."""
    _, _, plan = network_and_plan(setting)
    tuned = []
    monkeypatch.setattr(choosing.views, "chosen", lambda *_: "triton")
    monkeypatch.setattr(choosing, "tune_views", lambda setting, batch, plan: tuned.append(plan.channels))
    choosing.ready_views(setting, choosing.First(setting), plan, "eager")
    choosing.ready_views(setting, choosing.First(setting), plan, "captured-padded")
    assert tuned == [3, 4]
    gpu = replace(setting, precision=Precision("bf16", torch.device("cuda", 0)))
    assert choosing.taken_up(gpu, plan, "padded") == Choice("padded") and tuned == [3, 4, 4]
    named = replace(gpu, schedule=replace(gpu.schedule, step="padded"))
    assert choosing.taken_up(named, plan, "padded") == Choice("padded") and tuned == [3, 4, 4]
    assert choosing.taken_up(setting, plan, "eager") == Choice("eager") and tuned == [3, 4, 4]


def test_the_views_blocks_are_tuned_once(setting, monkeypatch):
    """Where the kernel makes the views, before any step is tried; the second run uses what the first found."""
    _, _, plan = network_and_plan(setting)
    fast, timed = triton_blocks.CANDIDATES[2], []

    def seconds(batch, plan):
        timed.append(len(batch.ids))
        return 0.5 if triton_blocks.blocks_of(plan) == fast else 1.0

    monkeypatch.setattr(choosing, "views_seconds", seconds)
    try:
        for _ in range(2):
            triton_blocks.use(plan, triton_blocks.DEFAULT)
            choosing.tune_views(setting, choosing.First(setting), plan)
            assert triton_blocks.blocks_of(plan) == fast
        assert timed == [16] * len(triton_blocks.CANDIDATES)
    finally:
        triton_blocks.use(plan, triton_blocks.DEFAULT)
