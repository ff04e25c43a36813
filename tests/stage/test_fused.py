"""The fused kinds of step: the forms they take, how they train, and where they are refused. That the forms are the
plain network: tests/model/test_norm.py and test_cudnn.py.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fastres.evaluate import scores
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError, UsageError
from fastres.model import cudnn, fold, units
from fastres.model.network import Architecture, build
from fastres.model.norm import function
from fastres.schedules.types import Stage
from fastres.stage import fused, stage_step
from fastres.stage.captured import CapturedStep
from fastres.stage.fused import CapturedFusedStep, FusedStep, check_norms
from fastres.stage.shared_step import shared
from fastres.stage.stage_step import STEPS, check_step, step_kind
from fastres.stage.step import CompiledStep, EagerStep
from tests.stage.test_step_paths import STAGES, assert_the_plain_way
from tests.stage.test_steps import assert_same, train
from tests.support.tiny_runs import train_tiny

GPU = Precision("bf16", torch.device("cuda", 0))
with_triton = pytest.mark.skipif(not function.has_triton(GPU.device), reason="Triton is not installed")


def test_nothing_takes_the_fused_forms_unasked():
    assert units.Forms() == units.PLAIN and step_kind("auto").forms == EagerStep.forms == units.CPU_FUSED
    assert not (units.CPU_FUSED.cudnn or units.CPU_FUSED.norm) and CompiledStep.forms == units.PLAIN
    fused = {name for name, kind in STEPS.items() if kind.forms == units.CUDA_FUSED}
    assert fused == {"fused", "captured-fused", "fused-padded", "captured-fused-padded"}
    assert CapturedStep.forms == units.CPU_FUSED and issubclass(CapturedFusedStep, CapturedStep)


@pytest.fixture
def elsewhere(monkeypatch):
    """The fused step on a CPU: torch's own layers stand in for the kernels; what was called of them."""
    calls = []

    def norm(norm: nn.BatchNorm2d, x, *, relu, add=None):
        calls.append("norm")
        out = norm(x) if add is None else norm(x) + add
        return out.relu() if relu else out

    def usable(dtype, device):
        calls.append("usable")
        return False

    monkeypatch.setattr(units, "batch_norm", norm)
    monkeypatch.setattr(units, "can_run", lambda norm, device: True)
    monkeypatch.setattr(cudnn, "usable", usable)
    for module in (fused, stage_step):
        monkeypatch.setattr(module, "check_fused", lambda device, sync_bn=False: None)
    return calls


@pytest.mark.parametrize(("name", "norms"), [("fc", 0), ("full", 20)])
def test_fused_is_the_plain_way(name, norms, elsewhere):
    stage: Stage = STAGES[name]
    assert_the_plain_way("fused", stage)
    assert elsewhere.count("norm") == 10 * norms and ("usable" in elsewhere) == (norms == 0)


@pytest.mark.slow
def test_a_fused_runs_evaluations_are_fused_too(elsewhere, packed, tmp_path, monkeypatch):
    seen = []

    class Watched(fold.StageNetwork):
        def __init__(self, network, dtype, **options) -> None:
            seen.append(options["forms"])
            super().__init__(network, dtype, **options)

    monkeypatch.setattr(scores, "StageNetwork", Watched)
    train_tiny(packed, tmp_path / "run", "--precision", "fp32", "--set", "step=fused", "--device", "cpu")
    assert len(seen) > 1 and set(seen) == {units.CUDA_FUSED}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused forms need a GPU")
@pytest.mark.parametrize(("name", "relative"), [("fp32", 1e-4), ("bf16", 2e-2)])
@pytest.mark.parametrize("stage", ["fc", "conv1", "all"])
@pytest.mark.parametrize("kind", ["fused", "captured-fused"])
def test_fused_is_eager_to_rounding(packed, kind, stage, name, relative):
    precision = Precision(name, torch.device("cuda"))
    assert_same(train(packed, kind, stage, 8, precision), train(packed, "eager", stage, 8, precision), relative)


def test_fused_is_refused_where_it_cannot_run(packed, monkeypatch):
    with pytest.raises(MachineError, match="step fused: needs a GPU, found cpu; use --set step=eager"):
        train(packed, "fused", "fc")
    cpu = Precision("fp32", torch.device("cpu"))
    for name, words in (("fused", "step fused: needs a GPU"), ("captured-fused", "step captured: needs a GPU")):
        with pytest.raises(MachineError, match=words):
            check_step(STEPS[name], "torch", cpu, "resident")
    check_step(STEPS["eager"], "apex", cpu, "ffcv")
    with pytest.raises(UsageError, match="--engine ffcv moves them"):
        check_step(STEPS["captured-fused"], "torch", GPU, "ffcv")
    monkeypatch.setattr(function, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="step fused: needs Triton"):
        check_step(FusedStep, "torch", GPU, "resident")


@with_triton
def test_a_batch_norm_over_several_processes_is_refused():
    check_step(FusedStep, "apex", GPU, "ffcv")
    world = SimpleNamespace(size=2, device=GPU.device)
    assert issubclass(shared(FusedStep, world, sync_bn=False), FusedStep)
    for refused in (
        lambda: check_step(FusedStep, "torch", GPU, "resident", sync_bn=True),
        lambda: shared(FusedStep, world, sync_bn=True),
    ):
        with pytest.raises(UsageError, match="step fused: its BatchNorm sees one process's images"):
            refused()


def test_a_norm_that_counts_its_batches_is_refused(elsewhere):
    network = build(Architecture("resnet18", 8, 4))
    check_norms(network)
    network.layer2[0].bn1.momentum = None
    with pytest.raises(UsageError, match="step fused: found a BatchNorm without a momentum"):
        FusedStep(network, torch.optim.SGD(network.parameters(), lr=0.1), Precision("fp32", torch.device("cpu")))


def test_a_run_that_cannot_be_fused_leaves_no_folder(packed, tmp_path):
    train_tiny(packed, tmp_path / "run", "--set", "step=fused", "--device", "cpu", code=4)
    assert not (tmp_path / "run").exists()
