"""Faults 16 to 20, and 30: what is wrong at the start is said before anything is read, made or trained."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fastres.evaluate import __main__ as evaluate
from fastres.machine.command import run_command
from fastres.model.weights import SHIPPED
from fastres.stage.step import EagerStep
from fastres.track.log import read_log
from fastres.track.run_dir import RunDir
from fastres.train import command as train_module
from fastres.train import loop
from preprocess import pack
from tests.conftest import TINY_FILE
from tests.support import worlds
from tests.support.tiny_runs import stop_after, train_tiny

ROOT = Path(__file__).parents[2]


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("optimizer.lrr=1", "'lrr' is not known, did you mean 'lr'?"),
        ("optimizer.lr=abc", "optimizer.lr=abc: expected a number"),
        ("batch_size=0", "batch_size is 0, expected 1 or more"),
        ("stages.0.epochs=-1", "epochs of stage fc is -1, expected 1 or more"),
    ],
)
def test_bad_settings_are_said_before_data_are_read(tmp_path, capsys, setting, sentence):
    train_tiny(tmp_path / "no such data", tmp_path / "run", "--set", setting, code=2)
    assert sentence in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.fault(17)
def test_a_batch_larger_than_the_data_is_one_step_an_epoch(packed, tmp_path, monkeypatch):
    sizes, original = [], EagerStep.__call__

    def counting(self, batch, plan, lr):
        sizes.append(len(batch.ids))
        original(self, batch, plan, lr)

    monkeypatch.setattr(EagerStep, "__call__", counting)
    assert train_tiny(packed, tmp_path / "run", "--set", "batch_size=1000")["status"] == "done"
    assert sizes == [40] * 6


@pytest.fixture
def older(tmp_path, monkeypatch):
    """older(package, version): Python finds that version first, as after installing it."""

    def install(package: str, version: str) -> None:
        folder = tmp_path / "site" / f"{package}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))

    return install


@pytest.mark.fault(18)
@pytest.mark.parametrize(("package", "version"), [("torch", "2.9.1+cu128"), ("torchvision", "0.25.0")])
def test_a_torch_too_old_is_exit_4_in_every_command(packed, tmp_path, older, capsys, package, version):
    older(package, version)
    folder = str(tmp_path / "run")
    commands = (
        lambda: train_module.main(["--schedule", str(TINY_FILE), "--data", str(packed), "--run-dir", folder]),
        lambda: evaluate.main([str(SHIPPED / "small_world_resnet18_w16.safetensors"), "--data", str(packed)]),
        lambda: pack.main(["--small-world", "--out", str(tmp_path / "packed")]),
    )
    for command in commands:
        assert run_command(command) == 4
        said = capsys.readouterr().err
        assert f"{package}: found {version}, expected" in said and "pip install 'torch>=2.11' torchvision" in said
    assert not (tmp_path / "run").exists() and not (tmp_path / "packed").exists()


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--device", "cuda:99"), "no such GPU here; use --device cpu"),
        (("--weights", "nowhere.safetensors"), "no such file; fetch it, or pass a FILE"),
        (("--engine", "ffcv"), "ffcv is not installed; apt-get install"),
        (("--engine", "dali"), "nvidia.dali is not installed; pip install"),
        (("--wandb", "offline"), "W&B is not installed; pip install wandb"),
    ],
)
def test_what_is_missing_is_exit_4_with_its_remedy(packed, tmp_path, monkeypatch, capsys, option, sentence):
    for module in ("ffcv", "nvidia", "nvidia.dali", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)  # what an import of a missing package meets
    monkeypatch.setattr("fastres.machine.extras.find_spec", lambda name: None)
    train_tiny(packed, tmp_path / "run", *option, code=4)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").is_dir() or not os.listdir(tmp_path / "run" / "checkpoints")


@pytest.mark.fault(18)
def test_pretrained_weights_without_a_network_are_exit_4(packed, tmp_path, monkeypatch, capsys):
    """torchvision's download against a port where nobody listens."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # kept with its proxies from the first request on
    train_tiny(packed, tmp_path / "run", "--set", "weights=IMAGENET1K_V1", "--set", "width=64", code=4)
    said = capsys.readouterr().err
    assert "could not be downloaded" in said and "--weights FILE" in said


@pytest.mark.slow
@pytest.mark.fault(19)
def test_a_live_run_is_refused_by_its_lock(packed, tmp_path, capsys):
    train_tiny(packed, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    with RunDir.open(tmp_path / "run", config):
        train_tiny(packed, tmp_path / "run", code=2)
    assert f"a live process (pid {os.getpid()}) is running in this folder" in capsys.readouterr().err


@pytest.mark.fault(20)
@pytest.mark.parametrize("place", ["/proc/fastres", "file/run"])
def test_a_run_folder_that_cannot_be_made_is_exit_4_at_the_start(packed, tmp_path, monkeypatch, capsys, place):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(loop, "train_epoch", None)
    train_tiny(packed, tmp_path / place, code=4)
    assert "the run folder cannot be created or written" in capsys.readouterr().err


@pytest.mark.fault(20)
@pytest.mark.slow
def test_a_run_folder_on_a_read_only_disk_is_exit_4(packed, tmp_path):
    """A real one, mounted in a namespace of its own: rights alone do not stop an administrator."""
    folder = tmp_path / "run"
    folder.mkdir()
    script = (
        f"mount -t tmpfs -o ro none {folder} || exit 99; exec {sys.executable} -m fastres.train --schedule {TINY_FILE} "
        f"--data {packed} --run-dir {folder} --wandb off"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    if done.returncode in (1, 99) and "fastres" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 4 and "Read-only file system" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--set", "batch_size=8"), "schedule.batch_size: 16 in the folder, 8 now"),
        (("--set", "stages.1.epochs=3"), "schedule.stages.1.epochs: 2 in the folder, 3 now"),
        (("--data", "OTHER"), "content_digest: "),
        (("--seed", "1"), "seed: 0 in the folder, 1 now"),
    ],
)
def test_a_resume_with_something_else_is_refused_with_the_difference(
    packed, tmp_path, monkeypatch, capsys, option, sentence
):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        train_tiny(packed, tmp_path / "run", code=75)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run" / "checkpoints").iterdir())
    if "OTHER" in option:
        option = ("--data", str(worlds.pack(tmp_path / "other", val=24)))
    train_tiny(packed, tmp_path / "run", *option, code=2)
    said = capsys.readouterr().err
    assert "holds a run of another configuration" in said and sentence in said
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert train_tiny(packed, tmp_path / "run")["status"] == "done"
    assert len([r for r in read_log(tmp_path / "run" / "log.jsonl") if r["event"] == "epoch"]) == 6
