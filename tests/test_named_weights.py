"""Weights by name: timm's ResNets are torchvision's, and what is not is refused before anything is fetched."""

import functools
from dataclasses import replace

import pytest
import torch

from fastres.engine.rehearsal import rehearse
from fastres.errors import DataError, MachineError, UsageError
from fastres.model.network import Architecture, describe
from fastres.model.weights import initial_network
from fastres.schedule_types import Schedule, Stage

timm = pytest.importorskip("timm")
SCHEDULE = Schedule(
    name="named", weights="timm:resnet18.a1_in1k",
    stages=(Stage(name="fc", epochs=1, train=("fc.*",), upscale=4, surgery=("fc",)),),
)  # fmt: skip


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A network of timm's own making, saved as timm saves one; what would be downloaded is that file."""
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "hub.pth")
    overlay = {"file": str(tmp_path / "hub.pth")}
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, pretrained_cfg_overlay=overlay))
    return network


def test_timms_network_is_the_same_function(theirs):
    ours = initial_network(SCHEDULE, 7).eval()
    assert describe(ours.state_dict()) == Architecture("resnet18", 64, 1000)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_a_name_is_known_before_it_is_fetched(monkeypatch):
    monkeypatch.setattr(timm, "create_model", None)
    assert rehearse(SCHEDULE, 7, 64) == [Architecture("resnet18", 64, 7)]


@pytest.mark.parametrize(
    ("weights", "fault", "words"),
    [
        ("timm:resnet18.nope", UsageError, "nope"),
        ("timm:resnet34.a1_in1k", UsageError, "expected timm:resnet18.TAG"),
        ("timm:resnet18d.ra2_in1k", UsageError, "resnet18d"),
        ("timm:", UsageError, "expected timm:resnet18.TAG"),
    ],
)
def test_other_names_are_refused(weights, fault, words):
    with pytest.raises(fault, match=words):
        rehearse(replace(SCHEDULE, weights=weights), 7, 64)


def test_other_normalisation_is_refused():
    schedule = replace(SCHEDULE, arch="resnet34", weights="timm:resnet34.ra4_e3600_r224_in1k")
    with pytest.raises(DataError, match=r"\(0.5, 0.5, 0.5\).*expected ImageNet's"):
        rehearse(schedule, 7, 64)


def test_without_a_network_it_says_what_to_do(monkeypatch):
    def fails(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(MachineError, match="no route to host.*--weights FILE"):
        initial_network(SCHEDULE, 7)
