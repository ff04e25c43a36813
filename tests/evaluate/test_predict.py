"""A network taken away and used: predictions are evaluation's scores, from safetensors and ONNX alike."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import fastres
from fastres import views
from fastres.data.decode import Recipe
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import __main__ as evaluate
from fastres.evaluate import combining
from fastres.evaluate import scores as scores_module
from fastres.machine.command import run_command
from fastres.machine.device import Precision
from fastres.machine.errors import UsageError
from fastres.model import export, onnx_file
from fastres.model.card import NORMALISATION
from fastres.model.metadata import digest_of, read_metadata
from fastres.model.reading import read_weights
from fastres.model.weights import save_weights
from fastres.predict import __main__ as predict
from fastres.predict.answering import Answering, open_model
from fastres.predict.decoding import decoded
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry
from tests.support.t7_files import lua_network, network, save
from tests.support.trees import picture, write_image

CPU = torch.device("cpu")
EXPORTED = pytest.mark.slow  # torch's exporter takes twenty seconds to load


@pytest.fixture(scope="module")
def run_dir(packed_for_engines, tmp_path_factory) -> Path:
    """A run's folder as far as its network goes: five classes, 16 pixels."""
    folder, manifest = tmp_path_factory.mktemp("run"), load_manifest(packed_for_engines)
    net = network(width=8, classes=5)
    metadata = {
        "classes": [[c.wnid, c.name] for c in manifest.classes],
        "side": 16,
        "upscale": 4,
        "convention": "half-pixel",
        "class_digest": manifest.class_digest,
        "digest": digest_of(net.state_dict()),
        "schedule": "tiny",
    }
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
    """What --json prints; of predict's lines {"images": [...]}."""
    assert command(module, *arguments, "--json") == 0
    out = capsys.readouterr().out
    return {"images": [json.loads(line) for line in out.splitlines()]} if module is predict else json.loads(out)


def pixels_of(paths, side: int = 16) -> np.ndarray:
    return np.concatenate([part.pixels for part in decoded(paths, Recipe(side, resize=True), 7)])


def answering(model, method: str = "12-crop") -> Answering:
    return Answering(*open_model(model, "fp32", CPU), model, method, "expsum")


@pytest.mark.parametrize(
    "file", ["", pytest.param("away/net.safetensors", marks=EXPORTED), pytest.param("away/net.onnx", marks=EXPORTED)]
)
def test_scores_are_those_of_evaluation(packed_for_engines, run_dir, file, photos, request):
    if file:
        request.getfixturevalue("exported")
    data = Resident(packed_for_engines, load_manifest(packed_for_engines), "val", CPU)
    plan = views.TestPlan(
        geometry=Geometry(16, 4), settings=ViewSettings(convention="half-pixel"), views=views.TWELVE_VIEWS
    )
    theirs = scores_module.score(network(width=8, classes=5), data, plan, Precision("fp32", CPU))
    ours = answering(run_dir / file).scores(pixels_of(photos))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert theirs.std() > 0.1


def test_the_errors_of_predictions_are_evaluations(packed_for_engines, run_dir, photos, capsys):
    """Through both commands: the share of images whose first answer is wrong."""
    errors = printed(capsys, evaluate, run_dir, "--data", packed_for_engines, "--precision", "fp32")["errors"]
    labels = np.load(packed_for_engines / "val.labels.npy")
    wnids = [c.wnid for c in load_manifest(packed_for_engines).classes]
    for method in combining.METHODS:
        found = printed(capsys, predict, *photos, "--model", run_dir, "--views", method, "--precision", "fp32")
        wrong = [row["top"][0]["class"] != wnids[label] for row, label in zip(found["images"], labels, strict=True)]
        assert 100 * np.mean(wrong) == pytest.approx(errors["expsum"][method]["top1"])


def test_probabilities_are_the_normalised_sum_of_e_to_the_score(run_dir, photos, capsys):
    model = answering(run_dir)
    scores = model.scores(pixels_of(photos[:1]))[0].double()
    summed = scores.exp().sum(0)
    top = printed(capsys, predict, photos[0], "--model", run_dir, "--precision", "fp32")["images"][0]["top"]
    expected = (summed / summed.sum()).sort(descending=True)
    assert [row["probability"] for row in top] == pytest.approx(expected.values.tolist(), rel=1e-4)
    assert [row["class"] for row in top] == [model.card.classes[c][0] for c in expected.indices]
    mean = scores.softmax(1).mean(0).max().item()
    top = printed(capsys, predict, photos[0], "--model", run_dir, "--combine", "softmax", "--precision", "fp32")
    assert top["images"][0]["top"][0]["probability"] == pytest.approx(mean, rel=1e-4)


def test_a_gates_options(run_dir, photos, capsys):
    """Its answers are test_gate.py's."""
    tops = {}
    gates = {"none": ("--gate", "0"), "all": ("--gate", "1e9")}
    for name, words in {"centre": ("--views", "centre"), "twelve": (), **gates}.items():
        found = printed(capsys, predict, *photos, "--model", run_dir, "--precision", "fp32", *words)
        answers = (image["top"] for image in found["images"])
        tops[name] = [[(row["class"], pytest.approx(row["probability"], rel=1e-4)) for row in top] for top in answers]
    assert tops["none"] == tops["centre"] != tops["all"] == tops["twelve"]
    assert command(predict, photos[0], "--model", run_dir, "--views", "centre", "--gate", "1") == 2
    assert "chooses who gets the twelve crops" in capsys.readouterr().err
    with pytest.raises(UsageError, match="gate -1: expected a margin"):
        fastres.load(run_dir).predict(str(photos[0]), gate=-1)


@EXPORTED
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


@EXPORTED
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


@EXPORTED
def test_an_onnx_file_that_differs_is_not_written(run_dir, tmp_path, monkeypatch, capsys):
    forward = onnx_file.OnnxNetwork.forward
    monkeypatch.setattr(onnx_file.OnnxNetwork, "forward", lambda self, x: forward(self, x) + 0.01)
    assert command(export, run_dir, "--onnx", tmp_path / "net.onnx") == 4
    assert "off by 0.01" in capsys.readouterr().err and not list(tmp_path.iterdir())


@EXPORTED
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
    for altered in (whole.replace(b'"side": ', b'"sidE": '), whole.replace(b'"upscale": 4', b'"upscale": 2')):
        assert altered != whole
        (tmp_path / "altered.onnx").write_bytes(altered)
        refused(3, "what the digest in it was made of", predict, photos[0], "--model", tmp_path / "altered.onnx")
    foreign = onnx.load(exported / "net.onnx")
    next(part for part in foreign.graph.initializer if len(part.raw_data) > 400).raw_data = bytes(
        next(part for part in foreign.graph.initializer if len(part.raw_data) > 400).raw_data[::-1]
    )
    onnx.save(foreign, tmp_path / "altered.onnx")
    refused(3, "what the digest in it was made of", predict, photos[0], "--model", tmp_path / "altered.onnx")
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    refused(3, "does not say", predict, photos[0], "--model", tmp_path / "foreign.onnx")
    net = network(width=8, classes=5)
    for name, metadata, words in (
        ("digest", {"digest": "0" * 64}, "digest"),
        ("classes", {"classes": [["a", "b"]]}, "1 classes"),
        ("side", {"side": 13}, "multiple of 8"),
        ("norm", {"normalisation": {"mean": [0], "std": [1]}}, "normalised"),
    ):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(save_weights(net, metadata))
        refused(3, words, predict, photos[0], "--model", path)
