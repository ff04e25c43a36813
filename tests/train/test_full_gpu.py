"""A GPU whose memory is full: said by torch, or by cuDNN where no workspace fits."""

import json

import pytest
import torch

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import scores as scores_module
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError
from fastres.model.network import Architecture, build
from fastres.schedules.types import ViewSettings
from fastres.stage.step import EagerStep
from fastres.track.run_dir import RunDir
from fastres.train import command as train_module
from fastres.views.geometry import Geometry
from tests.train.test_faults_run import command

FULL = torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("FIND was unable to find an engine to execute")


class Full(torch.nn.Module):
    """A network on a device that holds `room` views at most; torch's fault, and cuDNN's where no workspace fits."""

    def __init__(self, room: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.room, self.seen = build(Architecture("resnet18", 8, 4)).eval(), room, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) > self.room:
            raise FULL[len(self.seen) % 2]
        return self.network(x)


@pytest.mark.fault(31, by_hand=True)
def test_evaluation_halves_its_batch_until_it_fits(packed, capsys, monkeypatch):
    """The error raised by hand: what is done with it, not that a GPU raises it."""
    monkeypatch.setattr(scores_module, "_fitting", {})
    data = Resident(packed, load_manifest(packed), "val", torch.device("cpu"))
    plan = views.TestPlan(geometry=Geometry(16, 1), settings=ViewSettings(), views=views.TWELVE_VIEWS)
    fp32 = Precision("fp32", torch.device("cpu"))
    full, roomy = Full(12 * 5), Full(12 * 20)
    expected = scores_module.score(roomy, data, plan, fp32)
    scores = scores_module.score(full, data, plan, fp32)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
    assert scores.shape == (20, 12, 4) and full.seen[0] == 12 * 20 and set(full.seen[1:]) <= {12 * 10, 12 * 5}
    assert "the GPU's memory is full, going on with 5 images a pass" in capsys.readouterr().err
    full.seen.clear()
    torch.testing.assert_close(scores_module.score(full, data, plan, fp32), scores, atol=0, rtol=0)
    assert set(full.seen) == {12 * 5} and not capsys.readouterr().err  # remembered: the next epoch fills nothing
    with pytest.raises(MachineError, match="one image's views do not fit"):
        scores_module.score(Full(11), data, plan, fp32)


@pytest.mark.fault(31, by_hand=True)
@pytest.mark.parametrize("fault", FULL)
def test_training_out_of_memory_is_exit_4_with_the_batch_size(packed, tmp_path, monkeypatch, capsys, fault):
    def full(self, *arguments):
        raise fault

    monkeypatch.setattr(EagerStep, "_update", full)
    assert run_command(lambda: train_module.main(command(packed, tmp_path / "run", "--wandb", "off"))) == 4
    said = capsys.readouterr().err
    assert "memory is full at batch size 16 after" in said and "--set batch_size=8" in said
    with RunDir.open(tmp_path / "run", json.loads((tmp_path / "run" / "config.json").read_text())) as folder:
        assert folder.summary()["exit_code"] == 4 and not folder.finished


@pytest.mark.fault(31)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_that_is_really_full_is_exit_4(packed, tmp_path, capsys):
    """Most of its memory is taken away first."""
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - 600 * 2**20), dtype=torch.uint8, device="cuda")
    options = ["--wandb", "off", "--device", "cuda", "--set", "width=64", "--set", "batch_size=40"]
    arguments = [*command(packed, tmp_path / "run")[:6], *options]
    assert run_command(lambda: train_module.main(arguments)) == 4
    assert "the GPU's memory is full" in capsys.readouterr().err
    del held
