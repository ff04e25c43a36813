"""Keys and the environment stay where they are: nothing of them is in what a run writes, whatever W&B does."""

import json
import os
import re
import zlib
from pathlib import Path

import pytest

from fastres.machine.command import run_command
from fastres.train import command as train_module
from fastres.train.checkpoint import checkpoints_in
from tests.conftest import TINY_FILE
from tests.support.wandb_server import Answer, Refuse, serving

ROOT = Path(__file__).parents[2]
KEY = "5ec2e7" + "0123456789abcdef" * 2 + "ab"  # 40 hex digits, as W&B's keys
SECRETS = {"WANDB_API_KEY": KEY, "FASTRES_PASSWORD": "hunter2hunter2", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENG"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones and W&B's included; text blocks of pictures unpacked."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith(".png")]:
        for block in re.findall(rb"(?:zTXt|iTXt)[^\0]*\0+(x[^I]*)", found[name]):
            found[name] += zlib.decompressobj().decompress(block)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("server", [Refuse, Answer])
def test_no_secret_is_in_the_run_folder(packed, tmp_path, monkeypatch, server, capfd):
    """The whole folder after a run that W&B refused (so mirrored offline), and after one that it took."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    arguments = [
        "--schedule",
        str(TINY_FILE),
        "--data",
        str(packed),
        "--run-dir",
        str(folder),
        "--wandb",
        "online",
        "--checkpoint-every",
        "2",
    ]
    with serving(server) as running:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{running.server_port}")
        assert run_command(lambda: train_module.main(arguments)) == 0
        sent = json.dumps([running.received, running.asked]).encode()
    found = contents(folder)
    assert checkpoints_in(folder / "checkpoints") and any(name.endswith(".wandb") for name in found)
    assert b"optimizer" in found["config.json"] and len(found) >= 10
    found |= {"what was sent": sent, "what was said": "".join(capfd.readouterr()).encode()}
    for name, content in found.items():
        for variable, value in SECRETS.items():
            assert value.encode() not in content, f"{variable} in {name}"
            if (variable, name) != ("WANDB_API_KEY", "wandb/mirror.log"):  # W&B says that it took its key from there
                assert variable.encode() not in content, f"the name {variable} in {name}"


def test_nothing_is_unpickled_but_what_our_own_workers_wrote():
    """Every load in the source: torch's with weights_only, numpy's without allow_pickle, pickle in one pipe alone."""
    seen = 0
    for path in (*ROOT.glob("fastres/**/*.py"), *ROOT.glob("preprocess/**/*.py")):
        text = path.read_text()
        for call in re.findall(r"torch\.load\(.*", text):
            assert "weights_only=True" in call, f"{path}: {call}"
            seen += 1
        assert "allow_pickle" not in text and "weights_only=False" not in text, path
        if re.search(r"\b(pickle|cPickle|dill|joblib|shelve|marshal)\.(load|loads|open|Unpickler)", text):
            assert path.name == "decode_pool.py", f"{path} unpickles"
    assert seen >= 2
