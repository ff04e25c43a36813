"""Several processes make the views, scores and steps of one."""

import numpy as np
import pytest
import torch

from fastres.engine.distributed import World, open_world, slice_of
from fastres.errors import MachineError, UsageError
from tests import processes, sharing


@pytest.fixture(scope="module")
def alone(packed):
    return sharing.everything(str(packed))


@pytest.fixture(scope="module", params=[2, 3])
def worlds(request, packed):
    """What each process of a world of 2 or 3 reports."""
    return processes.together(request.param, sharing.everything, str(packed))


def test_slices_cut_a_batch_into_near_equal_parts():
    for whole in (0, 1, 2, 7, 256):
        for size in (1, 2, 3, 8):
            bounds = [slice_of(whole, rank, size) for rank in range(size)]
            assert bounds[0][0] == 0 and bounds[-1][1] == whole
            assert all(a[1] == b[0] for a, b in zip(bounds, bounds[1:]))
            assert max(b - a for a, b in bounds) - min(b - a for a, b in bounds) <= 1


def test_every_id_is_seen_once_with_the_same_view(worlds, alone):
    assert [len(w["views"]) for w in worlds] == {2: [20, 20], 3: [15, 13, 12]}[len(worlds)]
    together = {}
    for world in worlds:
        assert together.keys().isdisjoint(world["views"])
        together |= world["views"]
    assert together == alone["views"] and len(together) == 40


@pytest.mark.fault(15)
def test_scores_are_the_same_bits(worlds, alone):
    """Fault 15: 20 images on 2 and 3 processes, in fixed batches of 7, with the first process's BatchNorm."""
    assert {world["scores"] for world in worlds} == {alone["scores"]}


def close(ours: list[float], theirs: list[float]) -> None:
    """1e-4 of the norm: float32 summed in another order, over a few steps (see tests/test_steps.py)."""
    a, b = torch.tensor(ours), torch.tensor(theirs)
    assert (a - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("case", [0, 1], ids=["uneven slices", "an empty slice"])
def test_with_sync_bn_a_step_is_that_of_the_whole_batch(worlds, alone, case):
    for world in worlds:
        ours, whole = world["sync"][case], alone["sync"][case]
        assert ours["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        close(ours["learned"], whole["learned"])
        close(ours["statistics"], whole["statistics"])


@pytest.mark.parametrize("case", [0, 1], ids=["uneven slices", "an empty slice"])
def test_without_it_each_process_normalises_its_own_slice(worlds, alone, packed, case):
    expected = sharing.emulated(len(worlds), str(packed), (sharing.UNEVEN, sharing.EMPTY)[case])
    for world in worlds:
        assert world["own"][case]["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        close(world["own"][case]["learned"], expected["learned"])
    close(worlds[0]["own"][case]["statistics"], expected["statistics"])
    assert abs(expected["loss"] - alone["own"][case]["loss"]) > 1e-4  # so the comparison could fail


@pytest.mark.parametrize("part", ["head", "stem"])
def test_stages_that_train_one_layer(worlds, alone, part):
    for world in worlds:
        assert world[part]["loss"] == pytest.approx(alone[part]["loss"], rel=1e-5)
        close(world[part]["learned"], alone[part]["learned"])


def test_all_processes_hold_the_same_weights(worlds):
    for name in ("sync", "own"):
        assert all(world[name][0]["learned"] == worlds[0][name][0]["learned"] for world in worlds)


def test_one_process_shares_nothing(monkeypatch):
    """Without torchrun's environment, or with WORLD_SIZE=1, torch.distributed is not even started."""
    world = open_world("cpu")
    assert type(world) is World and not torch.distributed.is_initialized()
    for name, value in processes.environment(0, 1, 1).items():
        monkeypatch.setenv(name, value)
    assert type(open_world("cpu")) is World
    assert world.deal(5, 2).tolist() == [0, 1, 2, 3, 4] and world.step_class(int, True) is int
    rows = torch.ones(5, 1, 1)
    assert world.gather_rows(rows, np.arange(5), 5) is rows


def test_a_gpu_named_by_number_is_refused_under_torchrun(monkeypatch):
    for name, value in processes.environment(0, 2, 1).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="cuda:1.*expected auto, cuda or cpu"):
        open_world("cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no such GPU"):
            open_world("cuda")
