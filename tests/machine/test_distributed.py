"""Several processes make the views, scores and steps of one."""

import json

import numpy as np
import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.data.slices import slice_of, slices
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.processes.distributed import open_world
from fastres.machine.processes.world import World
from fastres.model.network import Architecture, build
from fastres.model.weights import save_weights
from fastres.schedules.types import ViewSettings
from fastres.views import TrainPlan, apply
from fastres.views.geometry import Geometry
from tests.support import processes, sharing


@pytest.fixture(scope="module")
def alone(packed):
    return sharing.everything(str(packed))


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
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


def test_slices_part_no_pair():
    for whole in (0, 1, 2, 7, 10, 256):
        for size in (1, 2, 3, 8):
            bounds = [slice_of(whole, rank, size, 2) for rank in range(size)]
            assert bounds[0][0] == 0 and bounds[-1][1] == whole
            assert all(a[1] == b[0] and (a[1] % 2 == 0 or a[1] == whole) for a, b in zip(bounds, bounds[1:]))
            assert max(b - a for a, b in bounds) - min(b - a for a, b in bounds) <= 2 + whole % 2


@pytest.mark.parametrize("size", [2, 3])
def test_mixed_views_are_the_same_for_every_number_of_processes_and_every_even_batch(packed, size):
    """Partners are neighbours in the epoch's order, whoever makes them."""
    data = Resident(packed, load_manifest(packed), "train", torch.device("cpu"))
    settings, order = ViewSettings(mixup=0.4, cutmix=1.0), np.random.default_rng(0).permutation(39)
    plan = TrainPlan(geometry=Geometry(16, 1), settings=settings, seed=0, stage=0, epoch=1)

    def made(batch_size: int, size: int) -> dict:
        found = {}
        for rank in range(size):
            for batch in slices(data, order, batch_size, rank, size, settings.together):
                own = torch.empty(len(batch.ids))
                seen = apply(batch.images, batch.rows, batch.ids, plan, own=own) if len(own) else []
                assert found.keys().isdisjoint(batch.ids.tolist())
                found |= {i: (view, share) for i, view, share in zip(batch.ids.tolist(), seen, own.tolist())}
        return found

    alone, shared, small = made(16, 1), made(16, size), made(6, size)
    assert alone.keys() == shared.keys() == small.keys() == set(range(39))
    for i, (view, share) in alone.items():
        assert (
            share == shared[i][1] == small[i][1] and torch.equal(view, shared[i][0]) and torch.equal(view, small[i][0])
        )
    assert sum(share < 1 for _, share in alone.values()) > 20


@pytest.mark.slow
def test_every_id_is_seen_once_with_the_same_view(worlds, alone):
    assert [len(w["views"]) for w in worlds] == {2: [20, 20], 3: [15, 13, 12]}[len(worlds)]
    together = {}
    for world in worlds:
        assert together.keys().isdisjoint(world["views"])
        together |= world["views"]
    assert together == alone["views"] and len(together) == 40


@pytest.mark.slow
@pytest.mark.fault(15)
def test_scores_are_the_same_bits(worlds, alone):
    """Fault 15: 20 images on 2 and 3 processes, in fixed batches of 7, with the first process's BatchNorm."""
    assert {world["scores"] for world in worlds} == {alone["scores"]}


def close(ours: list[float], theirs: list[float]) -> None:
    """1e-4 of the norm: float32 summed in another order, over a few steps (see tests/stage/test_steps.py)."""
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


def test_mixed_views_and_a_pull_are_those_of_the_whole_batch(worlds, alone, packed):
    """Pairs are not parted, labels are mixed alike, and the pull goes down once, however many processes there are."""
    for world in worlds:
        assert world["augmented"]["loss"] == pytest.approx(alone["augmented"]["loss"], rel=1e-5)
        close(world["augmented"]["learned"], alone["augmented"]["learned"])
    plain = sharing.trained(World(sharing.CPU.device), str(packed), ("*",), sharing.UNEVEN, sync_bn=True)
    free = sharing.trained(
        World(sharing.CPU.device), str(packed), ("*",), sharing.UNEVEN, sync_bn=True, settings=sharing.MIXED
    )
    assert abs(free["loss"] - plain["loss"]) > 1e-3  # so the comparison could fail
    ends = [torch.tensor(end["learned"]) for end in (free, alone["augmented"])]
    assert (ends[0] - ends[1]).norm() > 5e-4 * ends[0].norm()


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
    assert world.deal(5, 2).tolist() == [0, 1, 2, 3, 4]
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


def test_fp16_skips_an_update_in_all_processes_or_in_none(worlds):
    """One process's gradients overflow in the first step: nobody updates, every scale is halved; then all go on."""
    for world in worlds:
        assert world["fp16"]["seen"] == [[True, 512.0], [False, 512.0]]
        assert world["fp16"]["learned"] == worlds[0]["fp16"]["learned"]


@pytest.mark.slow
def test_evaluation_prints_and_writes_once_what_one_process_would(packed, tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "net.safetensors"
    digest = load_manifest(packed).class_digest
    weights.write_bytes(save_weights(build(Architecture("resnet18", 8, 4)), {"upscale": 4, "class_digest": digest}))
    common = [str(weights), "--data", str(packed), "--device", "cpu", "--json"]
    submission = ["--split", "test", "--submission", str(tmp_path / "answers.txt")]
    for arguments in (["--split", "val"], submission, [*submission, "--gate", "2"]):
        alone = sharing.evaluate_run([*common, *arguments])
        answers = (tmp_path / "answers.txt").read_bytes() if "test" in arguments else None
        (tmp_path / "answers.txt").unlink(missing_ok=True)
        first, second = processes.together(2, sharing.evaluate_run, [*common, *arguments])
        assert alone["code"] == first["code"] == second["code"] == 0
        assert json.loads(first["out"]) == json.loads(alone["out"]) and second["out"] == ""
        assert "--gate" not in arguments or 1 < json.loads(first["out"])["gate"]["views"] < 12
        assert answers is None or (tmp_path / "answers.txt").read_bytes() == answers


@pytest.mark.slow
def test_another_number_of_processes_is_refused(packed, tmp_path):
    """Fault 30. One process says it, all end with exit 2."""
    assert sharing.train_run(str(packed), str(tmp_path), [], ["signal", 0, 1])["code"] == 75
    first, second = processes.together(2, sharing.train_run, str(packed), str(tmp_path), [])
    assert first["code"] == second["code"] == 2 and second["said"] == ""
    assert "processes: 1 in the folder, 2 now" in first["said"]


@pytest.mark.slow
def test_who_is_preempted_first_waits_for_the_others():
    """Else torchrun would stop these while they still save and write the summary."""
    out = processes.together(2, sharing.leave_late, 1.5)
    assert abs(out[0] - out[1]) < 1.0
