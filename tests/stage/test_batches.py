"""A batch, or a process's slice, of one image where BatchNorm needs two: known before the first epoch, and no other."""

from dataclasses import replace

import pytest
import torch

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.schedules.types import Schedule, Stage, ViewSettings
from fastres.stage.rehearsal import rehearse
from fastres.stage.sync_bn import synchronise
from fastres.train import command as train_command
from fastres.views.geometry import Geometry
from tests.conftest import TINY_FILE
from tests.support import worlds

# a 7x7 stem without enlarging: 32 pixels end in maps of 1x1, 64 in 2x2
FLAT = Schedule(
    name="flat", width=8, weights=None, batch_size=8, stages=(Stage(name="all", epochs=1, train=("*",), upscale=1),)
)


def stage(**changes) -> Schedule:
    return replace(FLAT, stages=(replace(FLAT.stages[0], **changes),))


def refused(schedule=FLAT, side=32, **facts) -> str | None:
    try:
        rehearse(schedule, 4, side, **facts)
    except UsageError as error:
        return str(error)
    return None


def trains(images: int, batch_size: int, processes: int, sync_bn: bool, side: int = 32, **changes) -> bool:
    """Whether every slice of the batches has a BatchNorm that torch, or ours over all processes, can compute."""
    row = stage(**changes).stages[0]
    crop = Geometry(side, row.upscale).crop
    network = build(Architecture("resnet18", 8, 4))
    set_trainable(network, row.train)
    training_mode(network, row)
    if sync_bn:
        network = synchronise(network, lambda tensor: tensor)  # as one process that has the whole batch
    for whole in {min(batch_size, images), images % batch_size} - {0}:
        shares = [whole] if sync_bn else {len(range(rank, whole, processes)) for rank in range(processes)} - {0}
        for share in shares:
            try:
                network(torch.randn(share, 3, crop, crop))
            except ValueError:
                return False
            if not all(buffer.isfinite().all() for buffer in network.buffers()):
                return False
    return True


@pytest.mark.fault(36)
@pytest.mark.slow
@pytest.mark.parametrize("sync_bn", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_refused_exactly_where_torch_cannot(processes, sync_bn):
    """Every small number of images and batch size; what is proposed instead works."""
    for images in (1, 2, 3, 4, 5, 9):
        for batch_size in (1, 2, 3, 4, 8):
            schedule = replace(FLAT, batch_size=batch_size)
            said = refused(schedule, images=images, processes=processes, sync_bn=sync_bn)
            if batch_size < processes:
                assert said and said.startswith(f"batch_size is {batch_size} on {processes} processes")
                continue
            can = trains(images, batch_size, processes, sync_bn)
            assert (said is None) == can, (images, batch_size, said)
            if said and "batch_size=" in said:
                works = int(said.rpartition("batch_size=")[2])
                assert trains(images, works, processes, sync_bn), said
            elif said:
                assert not any(trains(images, size, processes, sync_bn) for size in range(processes, images + 2)), said


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    "changes,side,fails",
    [
        ({}, 32, True),
        ({}, 64, False),
        ({"upscale": 4}, 32, False),
        ({"train": ("fc.*",)}, 32, False),
        ({"train": ("fc.*",), "bn": "batch"}, 32, True),
        ({"train": ("conv1.*",)}, 32, False),
        ({"train": ("layer4.*",)}, 32, True),
        ({"train": ("layer1.*",)}, 32, False),
    ],
)
def test_it_depends_on_the_maps_and_on_what_learns(changes, side, fails):
    assert trains(9, 8, 1, False, side, **changes) is not fails
    assert (refused(stage(**changes), side, images=9) is not None) is fails


@pytest.mark.fault(36)
def test_re_estimated_statistics_have_batches_too():
    """Of up to 2,048 views, whatever the number of processes."""
    schedule = stage(train=("fc.*",), bn="recalibrated")
    assert "re-estimate BatchNorm is a single image" in refused(schedule, images=9)
    assert refused(schedule, images=9, processes=2) and refused(schedule, images=8) is None
    assert refused(replace(schedule, batch_size=23), images=5000) and 2048 % 23 == 1


@pytest.mark.fault(36)
def test_the_command_says_it_before_anything_is_made(tmp_path, capsys):
    packed = worlds.pack(tmp_path / "packed", train=33)  # maps of 2x2 at 14 pixels: fine
    small = worlds.pack(tmp_path / "small", side=8, train=33)  # 1x1 at 7
    for data, code in ((packed, 0), (small, 2)):
        arguments = ["--schedule", str(TINY_FILE), "--data", str(data), "--run-dir", str(tmp_path / "run"), "--dry-run"]
        assert run_command(lambda arguments=arguments: train_command.main(arguments)) == code
    said = capsys.readouterr().err
    assert "stage all: a batch" in said and "33 images in batches of 16" in said and "--set batch_size=17" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("batch_size", "processes", "mixup", "least"), [(2, 3, 0.0, 3), (4, 3, 0.2, 6), (6, 4, 0.2, 8)]
)
def test_a_batch_with_no_part_for_a_process_is_refused(batch_size, processes, mixup, least):
    """Known before a run: that process would have nothing to give to the gradients of a whole batch."""
    schedule = replace(FLAT, batch_size=batch_size, views=ViewSettings(mixup=mixup))
    said = refused(schedule, 64, images=40, processes=processes)
    assert said and said.startswith(f"batch_size is {batch_size} on {processes} processes, expected a part")
    assert f"--set batch_size={least} or more" in said
    assert not refused(replace(schedule, batch_size=least), 64, images=40, processes=processes)
