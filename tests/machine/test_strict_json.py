"""What commands print as JSON is JSON: NaN and infinity, which Python writes by default, are none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres.machine import strict_json

ROOT = Path(__file__).parents[2]


def test_what_is_not_finite_becomes_null_however_deep():
    value = {"a": [float("nan"), (1.5, float("inf"))], "b": {"c": np.float32("nan"), "d": torch.tensor(2)}, 3: "ü"}
    text = strict_json.dumps(value)
    read = json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert read == {"a": [None, [1.5, None]], "b": {"c": None, "d": 2}, "3": "ü"}


def test_no_command_prints_any_other():
    """Each line that prints or writes json.dumps itself: what is read back by us alone may."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (ROOT / "fastres").rglob("*.py")
        for line in path.read_text().splitlines()
        if "json.dumps(" in line.replace("strict_json.dumps(", "")
        and ("print(json" in line or "write_text(json" in line)
        if path.name != "mirror_child.py"  # imports nothing of ours; reports texts to its parent
    ]
    assert not found
