"""Fifty epochs leave memory, threads and file handles as they were; and a leak would be seen."""

import json

import pytest

from fastres.bench import soak
from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from tests.conftest import TINY_FILE
from tests.support import worlds


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_epochs_stay_flat(tmp_path):
    """A tiny schedule in its own process, checkpoints and W&B's mirror included; the demo's soak is in runs/."""
    packed = worlds.pack(tmp_path / "packed", train=64, val=16)
    file = tmp_path / "soak.json"
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--json", str(file), "--record", str(tmp_path)]
    assert run_command(lambda: soak.main([*arguments, "--device", "cpu"])) == 0
    result = json.loads(file.read_text())
    assert len(result["rows"]) >= 49, "the last epoch may end with the process"
    assert [entry["stage"] for entry in result["growth"]][-1] == 3 and result["growth"][-1]["epochs"] >= 30
    (record,) = tmp_path.glob("*_soak_*")
    assert {path.name for path in record.iterdir()} == {"soak.json", "table.md", "soak.png"}


def rows(memory=lambda epoch: 500.0, threads=lambda epoch: 9, handles=lambda epoch: 20):
    return [
        {"stage": 0, "epoch": e, "memory_mb": memory(e), "threads": threads(e), "handles": handles(e)}
        for e in range(1, 31)
    ]


@pytest.mark.parametrize(
    ("leak", "what"),
    [
        ({"memory": lambda e: 500 + 2.0 * e}, "memory_mb"),
        ({"threads": lambda e: 9 + e // 10}, "threads"),
        ({"handles": lambda e: 20 + e}, "handles"),
    ],
)
def test_a_leak_is_seen_and_noise_is_not(leak, what):
    assert soak.grew({"growth": soak.growth(rows(**leak))})[0][:2] == (1, what)
    noise = rows(memory=lambda e: 500 + 8 * (e % 2) + (300 if e < 3 else 0))
    assert soak.grew({"growth": soak.growth(noise)}) == []


def test_too_few_epochs_are_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="--epochs 3"):
        soak.main(["--epochs", "3", "--data", str(tmp_path)])
