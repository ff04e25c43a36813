"""What is wrong in any stage of a schedule is known before the first one starts, and before a run folder is made."""

from dataclasses import replace

import pytest
import torch

from fastres.machine.command import run_command
from fastres.machine.errors import DataError, UsageError
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.schedules import PAPER
from fastres.stage.rehearsal import rehearse
from tests.conftest import TINY, TINY_FILE


def with_stage(index: int, **changes):
    stages = list(TINY.stages)
    stages[index] = replace(stages[index], **changes)
    return replace(TINY, stages=tuple(stages))


def test_it_tells_the_network_of_every_stage():
    found = rehearse(TINY, 4, 16)
    assert [a.stem for a in found] == ["7x7", "7x7", "3x3", "3x3"] and {a.classes for a in found} == {4}
    assert [a.classes for a in rehearse(PAPER, 200, 64)] == [200] * 4  # IMAGENET1K weights are not fetched for it


@pytest.mark.parametrize(
    "schedule,sentence",
    [
        (with_stage(3, train=("nope.*",)), "'nope.*' matches no parameter"),
        (with_stage(3, surgery=("stem:blank",)), "finds a \\(3, 3\\) stem, expected 7x7"),
        (with_stage(2, upscale=2), "layers have sides"),
        (replace(TINY, weights="IMAGENET1K_V1", width=64, stages=TINY.stages[1:]), "1000 outputs, expected"),
    ],
)  # fmt: skip
def test_faults_of_later_stages_are_found(schedule, sentence):
    with pytest.raises(UsageError, match=sentence):
        rehearse(schedule, 4, 16)


def test_weights_files_are_looked_at(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save_weights(build(Architecture("resnet18", 8, 9, "3x3")), {}))
    with pytest.raises(UsageError, match="stem"):
        rehearse(replace(TINY, weights=str(path)), 4, 16)
    path.write_bytes(save_weights(build(Architecture("resnet34", 8, 9)), {}))
    with pytest.raises(DataError, match="found resnet34"):
        rehearse(replace(TINY, weights=str(path)), 4, 16)


def test_nothing_is_left_behind(packed, tmp_path):
    from fastres.train import command as train_command

    folder = tmp_path / "run"
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--run-dir", str(folder)]
    for setting in ("stages.3.train=nope.*", "stages.1.surgery=stem:torch7", "stages.2.upscale=2"):
        assert run_command(lambda setting=setting: train_command.main([*arguments, "--set", setting])) == 2
    assert not folder.exists()


def test_the_meta_device_is_left_again():
    assert rehearse(replace(PAPER, arch="resnet152"), 200, 64)[0].arch == "resnet152"
    assert torch.empty(0).device.type == "cpu"
