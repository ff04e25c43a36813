"""Weights are used under the conditions they were made for: told by the file, by its run, or by the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from fastres.data.manifest import load_manifest
from fastres.evaluate import __main__ as evaluate
from fastres.machine.command import run_command
from fastres.model import export
from fastres.model.metadata import read_metadata
from fastres.model.target import read_model
from fastres.model.weights import save_weights
from fastres.predict import __main__ as predict
from tests.support import worlds
from tests.support.t7_files import network
from tests.support.tiny_runs import train_tiny
from tests.support.trees import picture, write_image

FACTS = {"side": 16, "upscale": 4, "convention": "half-pixel"}


def command(module, *arguments) -> int:
    return run_command(lambda: module.main([str(a) for a in arguments]))


def printed(capsys, module, *arguments) -> dict:
    assert command(module, *arguments, "--json") == 0
    words = capsys.readouterr()
    assert module is evaluate or "assumed" not in words.err
    return json.loads(words.out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def refused(capsys, code: int, words: str, module, *arguments) -> None:
    assert command(module, *arguments) == code
    assert words in capsys.readouterr().err


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return network(width=8, classes=4)


@pytest.fixture(scope="module")
def run(packed, tmp_path_factory) -> Path:
    """A finished run with its checkpoints and stage ends, named by a path that holds from its own folder alone."""
    folder = tmp_path_factory.mktemp("conditions") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(packed.parent)
        train_tiny(Path(packed.name), folder, "--no-evaluation", "--precision", "fp32")
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    write_image(tmp_path / "photo.png", picture(40, 1), "PNG")
    return tmp_path / "photo.png"


def classes_of(packed) -> list:
    return [[c.wnid, c.name] for c in load_manifest(packed).classes]


def save(path: Path, net, **metadata) -> Path:
    path.write_bytes(save_weights(net, metadata))
    return path


def files_of(run: Path) -> list[Path]:
    return [run / "final.safetensors", *run.glob("stages/*.safetensors"), *run.glob("checkpoints/*.pt")]


@pytest.mark.slow
def test_every_file_that_holds_weights_says_what_they_are(run, packed):
    manifest, files = load_manifest(packed), files_of(run)
    assert len(files) >= 1 + 4 + 2, "the final weights, four stages, the last two checkpoints"
    for file in files:
        model = read_model(file)
        facts = {name: model.metadata[name] for name in ("side", "upscale", "convention", "classes", "class_digest")}
        stem = model.state["conv1.weight"].shape[-1]
        expected = {"side": 16, "upscale": 4 if stem == 7 else 1, "convention": "torch7"}
        assert facts == {**expected, "classes": classes_of(packed), "class_digest": manifest.class_digest}
        assert model.run == run


@pytest.mark.slow
def test_evaluation_finds_data_and_geometry_from_anywhere(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for file in (run, *files_of(run)):
        found = printed(capsys, evaluate, file, "--precision", "fp32")
        assert found["count"] == 20 and found["assumed"] == []


def test_a_run_that_has_not_ended_knows_its_data_too(run, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    monkeypatch.chdir(tmp_path)
    (checkpoint,) = sorted(copy.glob("checkpoints/*.pt"))[-1:]
    assert printed(capsys, evaluate, checkpoint)["count"] == 20
    (copy / "log.jsonl").unlink()
    refused(capsys, 3, "packed/manifest.json", evaluate, checkpoint)


def test_data_that_are_gone_are_said(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**summary, "data": str(tmp_path / "moved")}))
    refused(capsys, 3, "pass it with --data DIR", evaluate, copy)


def test_a_checkpoint_of_before_says_what_its_run_says(run, tmp_path, packed, capsys):
    """They had the network alone; inside a stage, and at its end, where the name counts the next one."""
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    folder = copy / "checkpoints"
    (last, *_) = sorted(folder.glob("stage4-*"))
    state = torch.load(last, weights_only=True)
    del state["metadata"]
    first = read_model(run / "stages" / "1.safetensors").state
    for name, content, upscale in (
        ("stage4-epoch000-step000000-0123456789abcdef.pt", state, 1),
        ("stage2-epoch000-step000000-0123456789abcdef.pt", {"network": first}, 4),
        ("stage1-epoch001-step000002-0123456789abcdef.pt", {"network": first, "stage": {}}, 4),
    ):
        torch.save(content, folder / name)
        metadata = read_model(folder / name).metadata
        expected = {"side": 16, "upscale": upscale, "convention": "torch7", "classes": classes_of(packed)}
        assert expected.items() <= metadata.items(), name
        assert printed(capsys, evaluate, folder / name, "--data", packed)["assumed"] == []


def test_a_target_that_is_not_there_is_said_first(tmp_path, photo, capsys):
    for module, rest in ((evaluate, ["--data", tmp_path / "nothing"]), (export, ["--onnx", tmp_path / "x.onnx"])):
        refused(capsys, 4, "gone.pth: no such file", module, "gone.pth", *rest)
    refused(capsys, 4, "gone.pth: no such file", predict, tmp_path / "no.png", "--model", "gone.pth")


def test_a_file_that_cannot_say_is_told_or_assumed_and_that_is_said(net, packed, tmp_path, photo, capsys):
    bare, told = tmp_path / "bare.pth", save(tmp_path / "told.safetensors", net, **FACTS, classes=classes_of(packed))
    torch.save(net.state_dict(), bare)
    (tmp_path / "classes.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in classes_of(packed)))
    options = ["--side", 16, "--upscale", 4, "--convention", "half-pixel", "--classes", tmp_path / "classes.txt"]

    right = printed(capsys, predict, photo, "--model", told)
    assert printed(capsys, predict, photo, "--model", bare, *options) == right
    assert command(predict, photo, "--model", bare) == 0
    words = capsys.readouterr()
    assert "assumed side 256, upscale 1, convention torch7, classes without names" in words.err
    assert command(predict, photo, "--model", bare, "--json") == 0
    assert json.loads(capsys.readouterr().out)["top"] != right["top"]

    assert command(evaluate, bare, "--data", packed) == 0
    assert "assumed side 16, upscale 4, convention torch7, classes in the order" in capsys.readouterr().err
    assert command(export, bare, "--safetensors", tmp_path / "out.safetensors", *options) == 0
    assert {**FACTS, "classes": classes_of(packed)}.items() <= read_metadata(tmp_path / "out.safetensors").items()


def test_what_contradicts_the_file_is_refused_with_both_values(net, packed, tmp_path, photo, capsys):
    told = save(tmp_path / "told.safetensors", net, **FACTS, classes=classes_of(packed))
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\nfish\n")
    for option, value, words in (
        ("--side", 64, "side 16, --side says 64"),
        ("--upscale", 1, "upscale 4, --upscale says 1"),
        ("--convention", "torch7", "convention half-pixel, --convention says torch7"),
        ("--classes", tmp_path / "classes.txt", "says cat, dog, bird"),
    ):
        refused(capsys, 3, words, predict, photo, "--model", told, option, value)
        refused(capsys, 3, words, evaluate, told, "--data", packed, option, value)
        refused(capsys, 3, words, export, told, "--onnx", tmp_path / "x.onnx", option, value)
    refused(capsys, 2, "--side 13: expected a multiple of 8", predict, photo, "--model", told, "--side", 13)
    refused(capsys, 2, "cannot be read", predict, photo, "--model", told, "--classes", tmp_path / "none.txt")
    (tmp_path / "twice.txt").write_text("cat\ncat\n")
    refused(capsys, 2, "names 'cat' twice", predict, photo, "--model", told, "--classes", tmp_path / "twice.txt")


def test_data_of_another_side_are_refused(run, tmp_path, capsys):
    other = worlds.pack(tmp_path / "other", side=24)
    for file in (run, *files_of(run)):
        refused(capsys, 3, "made for images of 16 pixels", evaluate, file, "--data", other)


@pytest.mark.parametrize("by", ["metadata", "file of ids", "file of names"])
def test_rows_in_another_order_are_put_in_order_by_name(net, packed, tmp_path, capsys, by):
    classes, order = classes_of(packed), [2, 0, 3, 1]
    right = printed(capsys, evaluate, save(tmp_path / "a.safetensors", net, **FACTS, classes=classes), "--data", packed)
    turned = network(width=8, classes=4)
    state = {**net.state_dict(), **{k: net.state_dict()[k][order] for k in ("fc.weight", "fc.bias")}}
    turned.load_state_dict(state)
    theirs = [classes[k] for k in order]
    if by == "metadata":
        arguments = [save(tmp_path / "b.safetensors", turned, **FACTS, classes=theirs, class_digest="0" * 64)]
    else:
        (tmp_path / "c.txt").write_text("".join(f"{pair[by.endswith('names')]}\n" for pair in theirs))
        arguments = [save(tmp_path / "b.safetensors", turned, **FACTS), "--classes", tmp_path / "c.txt"]
    assert command(evaluate, *arguments, "--data", packed, "--json") == 0
    words = capsys.readouterr()
    assert json.loads(words.out)["errors"] == right["errors"]
    assert "in another order than the data's classes; put into it by name" in words.err


def test_other_classes_are_refused(net, packed, tmp_path, capsys):
    classes = classes_of(packed)
    other = save(tmp_path / "a.safetensors", net, **FACTS, classes=[["cat", "cat"], *classes[1:]])
    refused(capsys, 3, "other classes, such as 'cat'", evaluate, other, "--data", packed)
    five = save(tmp_path / "b.safetensors", network(width=8, classes=5), **FACTS)
    refused(capsys, 3, "trained for 5 classes", evaluate, five, "--data", packed)
    digest = save(tmp_path / "c.safetensors", net, **FACTS, classes=classes, class_digest="0" * 64)
    refused(capsys, 3, "do not match the digest", evaluate, digest, "--data", packed)


def test_scores_that_overflow_are_no_answer(packed, tmp_path, photo, capsys):
    """Finite weights, and nothing that a probability could be made of."""
    net = network(width=8, classes=4)
    with torch.no_grad():
        net.fc.weight.fill_(3e38)
    huge = save(tmp_path / "huge.safetensors", net, **FACTS, classes=classes_of(packed))
    for arguments in ((predict, photo, "--model", huge), (evaluate, huge, "--data", packed)):
        refused(capsys, 3, "are not finite in fp32", *arguments, "--precision", "fp32")
