"""Python in five lines: fastres.pack, train, load, Run; the page that shows them; what importing costs."""

import ast
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastres
from fastres import api
from fastres.machine import device as device_module
from fastres.machine.arguments import asked
from fastres.machine.errors import DataError, MachineError, UsageError
from fastres.machine.processes import signals
from fastres.predict import __main__ as predict_command
from fastres.predict import model as model_module
from fastres.train import command
from preprocess import options as packing
from tests.conftest import TINY_FILE

ROOT = Path(__file__).parents[2]
ON_THE_CPU = {"wandb": "off", "device": "cpu", "precision": "fp32", "set": {"stages.0.epochs": 1}}
ONLY_OF_COMMANDS = {"help", "dry_run", "json", "check"}


@pytest.fixture(scope="module")
def run(packed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "run"
    return fastres.train(TINY_FILE, data=packed, run_dir=folder, **ON_THE_CPU)


def test_importing_is_light():
    """Under 0.3 s: nothing of torch before a name is used, and the names are there."""
    code = (
        "import sys, time; start = time.perf_counter(); import fastres; took = time.perf_counter() - start;"
        "print('train' in dir(fastres), {'torch', 'numpy', 'PIL'} & {*sys.modules}, took < 0.3)"
    )
    found = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert found == ["True", "set()", "True"]
    assert inspect.signature(fastres.train) == inspect.signature(api.train)


def test_type_checkers_see_what_there_is():
    stub = ast.parse((ROOT / "fastres/__init__.pyi").read_text())
    told = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told == set(api.__all__) == {*fastres._OF_API, "train"}
    assert all(callable(getattr(fastres, name)) for name in told)


@pytest.mark.parametrize(("function", "parser"), [(api.train, command.parser()), (api.pack, packing.parser())])
def test_keywords_are_the_options_with_their_defaults(function, parser):
    actions = {action.dest: action for action in parser._actions if action.dest not in ONLY_OF_COMMANDS}
    signature = inspect.signature(function).parameters
    assert set(signature) == set(actions)
    for name, parameter in signature.items():
        if parameter.default not in (None, False, inspect.Parameter.empty):
            default = actions[name].default
            assert parameter.default == (str(default) if isinstance(default, Path) else default), name


def test_a_keyword_is_what_the_option_would_be():
    words = ["--source=-odd", "--per-class=100,10", "--engines=ffcv,resident", "--json"]
    told = asked(
        packing.parser(), source="-odd", per_class=(100, 10), engines=["ffcv", "resident"], json=True, side=None
    )
    assert told == packing.parser().parse_args(words)
    trained = asked(command.parser(), schedule="paper", set={"batch_size": 64, "stages.0.trainable": ("fc", "layer4")})
    assert trained.set == ["batch_size=64", "stages.0.trainable=fc,layer4"] and trained.data == Path("packed")


def test_what_is_wrong_is_an_exception_with_the_commands_sentence(packed, tmp_path):
    for wrong, says in (
        ({"seed": -1}, "--seed -1: expected 0"),
        ({"seed": "x"}, "argument --seed: invalid int value"),
        ({"set": {"batch": 3}}, "'batch' is not known"),
        ({"engine": "tape"}, "invalid choice: 'tape'"),
    ):
        with pytest.raises(UsageError, match=re.escape(says)):
            fastres.train("paper", data=packed, run_dir=tmp_path / "none", **wrong)
    with pytest.raises(UsageError, match="did you mean 'paper'"):
        fastres.train("papers", data=packed)
    with pytest.raises(fastres.FastresError, match="no such file") as caught:
        fastres.load(tmp_path / "none")
    assert caught.value.exit_code == 4
    with pytest.raises(UsageError, match="--val-seed: goes with --val-fraction"):
        fastres.pack(tmp_path, val_seed=3)
    assert not (tmp_path / "none").exists()


def test_a_run_has_its_errors_and_answers_like_the_command(run, images, capsys):
    assert run.errors["12-crop"] == run.summary["errors"]["expsum"]["12-crop"]
    again = fastres.train(TINY_FILE, data=run.summary["data"], run_dir=run.folder, **ON_THE_CPU)
    assert again.summary == run.summary
    capsys.readouterr()
    folder, bad = images
    found = run.predict(folder)
    with pytest.raises(fastres.FastresError):
        predict_command.main([str(folder), "--model", str(run.folder), "--json"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [str(p.image) for p in found] == [line["image"] for line in printed] and len(found) == 4
    for mine, theirs in zip(found, printed, strict=True):
        if mine.image == bad:
            assert mine.error == theirs["error"] and not mine.ids
            continue
        assert mine.ids == tuple(row["class"] for row in theirs["top"])
        assert mine.probabilities == tuple(row["probability"] for row in theirs["top"])
        assert (mine.name, mine.probability) == (theirs["top"][0]["name"], theirs["top"][0]["probability"])


@pytest.fixture
def images(tmp_path):
    """A folder with three pictures of other sizes and modes, and a file that is none."""
    rng, folder = np.random.default_rng(5), tmp_path / "images"
    folder.mkdir()
    for name, mode, size in (("a.png", "RGB", (40, 30)), ("b.png", "RGBA", (9, 20)), ("c.png", "L", (16, 16))):
        channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
        pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
        Image.fromarray(pixels.squeeze()).save(folder / name)
    (folder / "d.jpg").write_bytes(b"no image")
    return folder, folder / "d.jpg"


def test_open_pictures_are_answered_as_their_files(run, images):
    files = sorted(images[0].glob("*.png"))
    by_path = run.predict(files, views="centre")
    opened = [Image.open(file) for file in files]
    by_picture = run.predict(opened, views="centre")
    assert [p.probabilities for p in by_picture] == [p.probabilities for p in by_path]
    assert [p.image for p in by_picture] == [0, 1, 2]
    arrays = [np.asarray(Image.open(files[0])), np.asarray(Image.open(files[2]))]
    assert [p.ids for p in run.predict(arrays, views="centre")] == [by_path[0].ids, by_path[2].ids]
    assert run.predict([]) == []
    for wrong, says in (
        ([opened[0], files[0]], "paths and pictures together"),
        (np.zeros((3, 8, 8), np.uint8), r"picture 0 is uint8 \[3, 8, 8\], expected uint8 \[H, W, 3\]"),
        (np.zeros((8, 8, 3), np.float32), "is float32"),
        ([Image.new("LAB", (8, 8))], "found mode LAB"),
        ("nowhere.jpg", "there is no such file"),
    ):
        with pytest.raises(UsageError, match=says):
            run.predict(wrong)
    (images[0] / "cut.png").write_bytes(files[0].read_bytes()[:200])
    with Image.open(images[0] / "cut.png") as cut, pytest.raises(DataError, match="picture 0 cannot be decoded"):
        run.predict([cut])
    with pytest.raises(UsageError, match="views 'many': expected one of"):
        run.predict(files, views="many")
    with pytest.raises(UsageError, match="background: found 'clear'"):
        run.predict(files, background="clear")


def test_loading_gives_a_plain_network(run):
    model = fastres.load(run.folder / "final.safetensors", device="cpu")
    assert [name for _, name in model.classes] == [name for _, name in run.model.classes]
    assert not model.network.training and model.card.geometry.crop > 0


def test_in_a_thread_there_are_no_signals_to_hear_and_torchs_settings_are_the_callers_again(packed, tmp_path):
    train = {**ON_THE_CPU, "no_evaluation": True, "deterministic": True, "run_dir": tmp_path / "run", "data": packed}
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(fastres.train, TINY_FILE, **train).result().errors == {}
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


def test_loading_and_predicting_on_a_gpu_leave_cudnn_as_it_was(run, monkeypatch):
    """No GPU here: the world sets the flags as it would for one, and what answers only looks at them."""
    cudnn, seen = torch.backends.cudnn, []

    def flags():
        return cudnn.benchmark, cudnn.allow_tf32

    def world_of_a_gpu(device):
        device_module.use_fast_kernels()
        return open_world("cpu")

    open_world = api.open_world
    monkeypatch.setattr(api, "open_world", world_of_a_gpu)
    monkeypatch.setattr(cudnn, "benchmark", False)
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    model = fastres.load(run.folder)
    assert flags() == (False, True)
    monkeypatch.setattr(model_module.Answering, "answers", lambda *_: seen.append(flags()) or [])
    for device, expected in (("cpu", (False, True)), ("cuda", (True, False))):
        model.precision = replace(model.precision, device=torch.device(device))
        assert model.predict(run.folder / "config.json") == []
        assert seen.pop() == expected and flags() == (False, True)


def test_what_is_the_machines_fault_is_one_of_ours(tmp_path):
    for call in (lambda: fastres.load("x" * 300), lambda: fastres.train("x" * 300 + ".py")):
        with pytest.raises(MachineError, match="File name too long"):
            call()


class Stopped(Exception):
    pass


def stop(number, frame):
    raise Stopped


@pytest.mark.parametrize(("handler", "raised"), [(signal.default_int_handler, KeyboardInterrupt), (stop, Stopped)])
def test_a_second_ctrl_c_is_the_callers(monkeypatch, handler, raised):
    """The first asks for a checkpoint; a command ends at once at the second, a notebook must not."""
    monkeypatch.setattr(signals, "ECHO_S", 0.0)
    before = signal.signal(signal.SIGINT, handler)
    try:
        with signals.StopRequest() as request, pytest.raises(raised):
            signal.raise_signal(signal.SIGINT)
            assert request.requested
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_the_pages_code_runs_as_a_file(tmp_path):
    """Every block of python.md, one after the other, in a folder with the photos that the page has."""
    page = (ROOT / "fastres/docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) >= 3
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label, channel in (("cat", 0), ("dog", 2)):
            for i in range(count):
                pixels = rng.integers(0, 90, (40, 36, 3), dtype=np.uint8)
                pixels[..., channel] += 120
                file = tmp_path / f"photos/{split}/{label}/{i}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    (tmp_path / "more").mkdir()
    for copy in (tmp_path / "photo.jpg", tmp_path / "more/photo.jpg"):
        copy.write_bytes(file.read_bytes())
    (tmp_path / "more/broken.jpg").write_bytes(file.read_bytes()[:200])
    (tmp_path / "page.py").write_text("\n".join(blocks))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "%" in done.stdout and "broken.jpg cannot be decoded" in done.stdout and re.search(r"cat|dog", done.stdout)
