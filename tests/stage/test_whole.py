"""Stages on whole images instead of crops: what the network sees in training, validation, test, and afterwards."""

import json

import numpy as np
import pytest
import torch

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as evaluate
from fastres.machine.errors import DataError
from fastres.model.card import card_of
from fastres.model.flop import stage_flop, training_flop
from fastres.model.metadata import checked, read_metadata
from fastres.model.network import Architecture
from fastres.model.reading import read_weights
from fastres.schedules import SCHEDULES
from fastres.schedules.types import ViewSettings
from fastres.track.log import read_log
from fastres.track.time_left import costs
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import train_tiny

CPU = torch.device("cpu")


def images(packed) -> tuple:
    data = Resident(packed, load_manifest(packed), "train", CPU)
    return next(iter(data.batches(np.arange(6), 6)))


@pytest.mark.parametrize(("upscale", "side"), [(1, 16), (4, 64)])
def test_a_whole_geometry_crops_nothing(upscale, side):
    geometry = Geometry(16, upscale, True)
    assert (geometry.resized, geometry.crop, geometry.room) == (side, side, 0)
    assert Geometry(16, upscale).crop == side * 7 // 8


@pytest.mark.parametrize("impl", ["numba", "torch"])
def test_training_views_are_the_images_themselves_or_their_mirrors(packed, impl):
    batch, settings = (
        images(packed),
        ViewSettings(brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0, impl=impl),
    )
    plan = views.TrainPlan(geometry=Geometry(16, 1, True), settings=settings, seed=0, stage=0, epoch=1)
    seen = views.apply(batch.images, batch.rows, batch.ids, plan)
    alike = views.TestPlan(geometry=Geometry(16, 1, True), settings=settings)
    plain = views.apply(batch.images, batch.rows, batch.ids, alike)
    assert seen.shape == (6, 3, 16, 16)
    mirrored = [not torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, plain, strict=True)]
    for view, image, flip in zip(seen, plain, mirrored, strict=True):
        torch.testing.assert_close(view, image.flip(-1) if flip else image, atol=1e-5, rtol=0)
    assert 0 < sum(mirrored) < 6


def test_ten_crops_of_a_whole_image_are_itself_and_its_mirror(packed):
    batch = images(packed)
    made = views.apply(batch.images, batch.rows, batch.ids, views.twelve_views(Geometry(16, 1, True), ViewSettings()))
    made = made.reshape(6, 12, 3, 16, 16)
    for index, view in enumerate(views.TWELVE_VIEWS):
        expected = made[:, 0].flip(-1) if view.mirrored else made[:, 0]
        torch.testing.assert_close(made[:, index], expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def trained(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, train_tiny(packed, folder, "--precision", "fp32", "--set", "stages.3.whole=true")


def test_validation_test_and_the_files_have_the_last_stages_size(trained, packed, capsys):
    folder, summary = trained
    last = [record for record in read_log(folder / "log.jsonl") if record["event"] == "epoch"][-1]
    errors = summary["errors"]["expsum"]
    assert last["val_top1_err"] == errors["centre"]["top1"] == errors["full"]["top1"]
    written = read_metadata(folder / "final.safetensors")
    assert written["whole"] is True and "whole" not in read_metadata(folder / "stages" / "2.safetensors")
    capsys.readouterr()
    for target in (folder, next((folder / "checkpoints").glob("stage4-*.pt"))):
        assert evaluate.main([str(target), "--data", str(packed), "--precision", "fp32", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["errors"]["expsum"] == errors
    network = Architecture("resnet18", 8, 4, "3x3")
    card = card_of(written, network, "x")
    assert card.geometry == Geometry(16, 1, True) and card.to_metadata()["whole"] is True
    assert "window" not in card.preprocessing() and "float32 [batch, 3, 16, 16]" in card.preprocessing()
    assert {"conv1.weight"} <= read_weights(folder / "final.safetensors").keys()


def test_metadata_that_say_whole_otherwise_are_refused():
    with pytest.raises(DataError, match="says whole 'yes', expected true or false"):
        checked({"whole": "yes"}, "x")


def test_costs_are_those_of_the_larger_image():
    schedule = SCHEDULES["test-size"].to_dict()
    operations = stage_flop(schedule, 200, 64)
    assert operations[-1] == training_flop(Architecture("resnet18", 64, 200, "3x3"), ("fc.*", "layer4.1.bn2.*"), 64)
    (_, crops), (_, whole) = costs(schedule["stages"])[-2:]
    assert whole / crops == pytest.approx((64 / 56) ** 2)
