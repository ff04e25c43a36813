"""A network taken away and used: predictions are evaluation's scores, from safetensors and ONNX alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres import evaluate, export, predict, scoring, views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.engine.precision import Precision
from fastres.errors import run_command
from fastres.geometry import Geometry
from fastres.model import onnx_file
from fastres.model.card import NORMALISATION
from fastres.model.weights import digest_of, read_metadata, read_weights, save_weights
from fastres.schedule_types import ViewSettings
from tests.t7_files import lua_network, network, save
from tests.trees import picture, write_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run_dir(packed_for_engines, tmp_path_factory) -> Path:
    """A run's folder as far as its network goes: five classes, 16 pixels."""
    folder, manifest = tmp_path_factory.mktemp("run"), load_manifest(packed_for_engines)
    net = network(width=8, classes=5)
    metadata = {
        "classes": [[c.wnid, c.name] for c in manifest.classes], "side": 16, "upscale": 4, "convention": "half-pixel",
        "class_digest": manifest.class_digest, "digest": digest_of(net.state_dict()), "schedule": "tiny",
    }  # fmt: skip
    (folder / "final.safetensors").write_bytes(save_weights(net, metadata))
    return folder


@pytest.fixture(scope="module")
def exported(run_dir) -> Path:
    """The same as ONNX and as safetensors, by the command."""
    folder = run_dir / "away"
    folder.mkdir()
    files = ["--onnx", folder / "net.onnx", "--safetensors", folder / "net.safetensors"]
    assert command(export, run_dir, *files) == 0
    return folder


@pytest.fixture(scope="module")
def photos(packed_for_engines) -> list[Path]:
    """The validation images, in the order they were packed."""
    names = (packed_for_engines / "val.files.txt").read_text().split("\n")[:-1]
    return [packed_for_engines.parent / "tree" / name for name in names]


def command(module, *arguments) -> int:
    return run_command(lambda: module.main([str(a) for a in arguments]))


def printed(capsys, module, *arguments) -> dict:
    assert command(module, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_scores_are_those_of_evaluation(packed_for_engines, run_dir, exported, photos):
    data = Resident(packed_for_engines, load_manifest(packed_for_engines), "val", CPU)
    plan = views.TestPlan(
        geometry=Geometry(16, 4), settings=ViewSettings(convention="half-pixel"), views=views.TWELVE_VIEWS
    )
    theirs = evaluate.score(network(width=8, classes=5), data, plan, Precision("fp32", CPU))
    for model in (run_dir, exported / "net.safetensors", exported / "net.onnx"):
        net, card, precision = predict.open_model(model, "fp32", CPU)
        ours = predict.scores_of(net, card, precision, predict.read_images(photos, 16))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert theirs.std() > 0.1


def test_the_errors_of_predictions_are_evaluations(packed_for_engines, run_dir, photos, capsys):
    """Through both commands: the share of images whose first answer is wrong."""
    errors = printed(capsys, evaluate, run_dir, "--data", packed_for_engines, "--precision", "fp32")["errors"]
    labels = np.load(packed_for_engines / "val.labels.npy")
    wnids = [c.wnid for c in load_manifest(packed_for_engines).classes]
    for method in scoring.METHODS:
        found = printed(capsys, predict, *photos, "--model", run_dir, "--views", method, "--precision", "fp32")
        wrong = [row["top"][0]["class"] != wnids[label] for row, label in zip(found["images"], labels, strict=True)]
        assert 100 * np.mean(wrong) == pytest.approx(errors["expsum"][method]["top1"])


def test_probabilities_are_the_normalised_sum_of_e_to_the_score(run_dir, photos, capsys):
    net, card, precision = predict.open_model(run_dir, "fp32", CPU)
    scores = predict.scores_of(net, card, precision, predict.read_images(photos[:1], 16))[0].double()
    summed = scores.exp().sum(0)
    top = printed(capsys, predict, photos[0], "--model", run_dir, "--precision", "fp32")["images"][0]["top"]
    expected = (summed / summed.sum()).sort(descending=True)
    assert [row["probability"] for row in top] == pytest.approx(expected.values.tolist(), rel=1e-4)
    assert [row["class"] for row in top] == [card.classes[c][0] for c in expected.indices]
    mean = scores.softmax(1).mean(0).max().item()
    top = printed(capsys, predict, photos[0], "--model", run_dir, "--combine", "softmax", "--precision", "fp32")
    assert top["images"][0]["top"][0]["probability"] == pytest.approx(mean, rel=1e-4)


def test_every_file_gives_the_same_answers(run_dir, exported, tmp_path, capsys):
    """A photo of another size and shape, in text."""
    write_image(tmp_path / "photo.png", picture(48, 5)[:40], "PNG")
    answers = []
    for model in (run_dir, exported / "net.safetensors", exported / "net.onnx"):
        assert command(predict, tmp_path / "photo.png", "--model", model, "--precision", "fp32") == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] == answers[2]
    lines = answers[0].splitlines()
    assert lines[0].endswith("photo.png") and len(lines) == 6 and "thing" in lines[1] and "(n0" in lines[1]


def test_exported_files_state_what_they_are(run_dir, exported):
    import onnx

    model = onnx.load(exported / "net.onnx")
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert "56 x 56" in stated["preprocessing"] and "enlarge it to 64" in stated["preprocessing"]
    assert len(json.loads(stated["classes"])) == 5
    metadata = read_metadata(exported / "net.safetensors")
    assert json.loads(stated["fastres"]) == metadata and metadata["normalisation"] == NORMALISATION
    before = read_metadata(run_dir / "final.safetensors")
    assert before.items() <= metadata.items() and metadata["schedule"] == "tiny"
    state = read_weights(run_dir / "final.safetensors")
    assert all(torch.equal(state[k], v) for k, v in read_weights(exported / "net.safetensors").items())
    assert str(Path(onnx_file.__file__).parent.parent).encode() not in (exported / "net.onnx").read_bytes()


def test_t7_becomes_safetensors(tmp_path, capsys):
    net = network()
    source, target = save(tmp_path / "old.t7", lua_network(net)), tmp_path / "new.safetensors"
    facts = printed(capsys, export, source, "--safetensors", target)
    assert "224 x 224" in facts["preprocessing"]  # an ImageNet network sees images of 256 pixels
    assert torch.equal(read_weights(target)["fc.weight"], net.fc.weight)
    write_image(tmp_path / "photo.jpg", picture(32, 1))
    found = printed(capsys, predict, tmp_path / "photo.jpg", "--model", target, "--views", "centre")
    assert found["images"][0]["top"][0]["name"].startswith("class ")


@pytest.mark.slow
def test_an_onnx_file_that_differs_is_not_written(run_dir, tmp_path, monkeypatch, capsys):
    forward = onnx_file.OnnxNetwork.forward
    monkeypatch.setattr(onnx_file.OnnxNetwork, "forward", lambda self, x: forward(self, x) + 0.01)
    assert command(export, run_dir, "--onnx", tmp_path / "net.onnx") == 4
    assert "off by 0.01" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_faults_are_one_sentence(run_dir, exported, photos, tmp_path, capsys):
    import onnx

    def refused(code: int, words: str, module, *arguments) -> None:
        assert command(module, *arguments) == code
        assert words in capsys.readouterr().err

    (tmp_path / "text.jpg").write_text("no image")
    refused(2, "gone.jpg", predict, "gone.jpg", "--model", run_dir)
    refused(3, "text.jpg", predict, tmp_path / "text.jpg", "--model", run_dir)
    refused(3, "not finished", predict, photos[0], "--model", tmp_path)
    refused(4, "no such file", predict, photos[0], "--model", tmp_path / "gone.onnx")
    refused(2, "fp32", predict, photos[0], "--model", exported / "net.onnx", "--precision", "bf16")
    refused(2, "--onnx FILE", export, run_dir)
    whole = (exported / "net.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    refused(3, "half.onnx", predict, photos[0], "--model", tmp_path / "half.onnx")
    foreign = onnx.load(exported / "net.onnx")
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    refused(3, "does not say", predict, photos[0], "--model", tmp_path / "foreign.onnx")
    net = network(width=8, classes=5)
    for name, metadata, words in (
        ("digest", {"digest": "0" * 64}, "digest"), ("classes", {"classes": [["a", "b"]]}, "1 classes"),
        ("side", {"side": 13}, "multiple of 8"), ("norm", {"normalisation": {"mean": [0], "std": [1]}}, "normalised"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(save_weights(net, metadata))
        refused(3, words, predict, photos[0], "--model", path)
