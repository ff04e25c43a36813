"""Weights by name: timm's ResNets are torchvision's, and what is not is refused before anything is fetched."""

import functools
import hashlib
import re
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torchvision.models import ResNet18_Weights, resnet18

from fastres.machine.command import run_command
from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.model.named import named_state
from fastres.model.network import Architecture, describe
from fastres.model.weights import initial_network
from fastres.predict import __main__ as predict
from fastres.schedules.types import Schedule, Stage
from fastres.stage.rehearsal import rehearse
from tests.support.trees import picture, write_image

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
SCHEDULE = Schedule(
    name="named", weights="timm:resnet18.a1_in1k",
    stages=(Stage(name="fc", epochs=1, train=("fc.*",), upscale=4, surgery=("fc",)),),
)  # fmt: skip


@pytest.fixture(name="timm")
def _timm():
    """Imported where a test runs: it takes two seconds, in every process that collects the tests."""
    return import_module("timm")


@pytest.fixture
def theirs(tmp_path, monkeypatch, timm):
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


def test_a_name_is_known_before_it_is_fetched(monkeypatch, timm):
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


def test_without_a_network_it_says_what_to_do(monkeypatch, timm):
    def fails(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm, "create_model", fails)
    with pytest.raises(MachineError, match="no route to host.*--weights FILE"):
        initial_network(SCHEDULE, 7)


# ------------------------------------------------------------------------------------------- torchvision's


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return type(self.path).touch, (self.path,)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """cached(content): put it where torchvision keeps ResNet-18's weights; `honest` renames the weights after it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)

    def put(content, honest: bool):
        torch.save(content, tmp_path / "content")
        data, name = (tmp_path / "content").read_bytes(), ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
        if honest:
            digest = hashlib.sha256(data).hexdigest()[:8]
            name = re.sub("[0-9a-f]{8}", digest, name)
            entry = replace(ResNet18_Weights.IMAGENET1K_V1.value, url=f"https://nowhere/{name}")
            monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1, "_value_", entry)
        (folder / name).write_bytes(data)
        return folder / name

    return put


@pytest.mark.fault(25)
def test_code_in_torchvisions_cache_is_not_run(cached, tmp_path):
    """Not where its digest is wrong, and not where it is right."""
    file = cached({"x": Trap(tmp_path / "ran")}, honest=False)
    with pytest.raises(DataError, match=f"{file.name}: its sha256 begins with .*expected f37072fd.*remove it"):
        named_state("resnet18", "IMAGENET1K_V1")
    cached({"x": Trap(tmp_path / "ran")}, honest=True)
    with pytest.raises(DataError, match="cannot be read as weights alone"):
        named_state("resnet18", "IMAGENET1K_V1")
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_torchvisions_weights_predict_imagenets_classes(cached, tmp_path, capsys):
    torch.manual_seed(0)
    cached(resnet18().state_dict(), honest=True)
    write_image(tmp_path / "photo.png", picture(64, 5), "PNG")
    names = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    for model in ("ResNet18_Weights.IMAGENET1K_V1", tmp_path / "net.pth"):
        torch.save(resnet18().state_dict(), tmp_path / "net.pth")
        assert run_command(lambda model=model: predict.main([str(tmp_path / "photo.png"), "--model", str(model)])) == 0
        lines = capsys.readouterr().out.splitlines()[1:]
        assert len(lines) == 5 and all(re.match(r" +[0-9.]+ %  (.*) \(\d+\)", line)[1] in names for line in lines)
    assert run_command(lambda: predict.main([str(tmp_path / "photo.png"), "--model", "ResNet18_Weights.NONE"])) == 2
    assert "torchvision has none of that name" in capsys.readouterr().err


@pytest.mark.slow
def test_timms_name_predicts(theirs, tmp_path, capsys):
    write_image(tmp_path / "photo.png", picture(64, 5), "PNG")
    arguments = [str(tmp_path / "photo.png"), "--model", "timm:resnet18.a1_in1k"]
    assert run_command(lambda: predict.main(arguments)) == 0 and "%" in capsys.readouterr().out
