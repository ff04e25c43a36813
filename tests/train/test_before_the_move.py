"""A run that the code before the move of all files began, killed in its third stage: today's code ends it.

before_the_move/ is that run's folder, made at commit cf3e65f: the tiny schedule on images of whole numbers, a
checkpoint after every step, killed after the third step of its third stage (the second is saved). whole.json has what
the uninterrupted run of that code left.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastres.model.metadata import digest_of
from fastres.model.reading import read_weights
from fastres.track.log import read_log
from tests.support import worlds
from tests.support.golden import kind
from tests.support.tiny_runs import train_tiny

BEFORE = Path(__file__).with_name("before_the_move")
WHOLE = json.loads((BEFORE / "whole.json").read_text())
OPTIONS = ("--device", "cpu", "--precision", "fp32", "--checkpoint-every", "1")


def whole_numbers(count: int, side: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images made of integers alone: every machine makes the same bytes, and so the digest that the run asks for."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) * classes // count
    images = rng.integers(0, 160, (count, side, side, 3))
    images[np.arange(count), :, :, labels % 3] += 30
    images[labels >= 3, ::2] += 40
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "blobs", whole_numbers)
        return worlds.pack(tmp_path_factory.mktemp("before") / "packed")


@pytest.mark.slow
def test_a_run_begun_before_the_move_ends_after_it(packed, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(BEFORE, run)
    (run / "pictures").mkdir()
    resumed = train_tiny(packed, run, *OPTIONS)
    assert "resuming in stage 3 after 0 of its epochs and 2 steps" in capsys.readouterr().err
    steps = [(r["stage"], r["epoch"], r["step"]) for r in read_log(run / "log.jsonl") if r["event"] == "step"]
    assert len(set(steps)) == len(steps) and steps[0] == (0, 1, 1) and steps[-1][0] == 3
    whole = train_tiny(packed, tmp_path / "whole", *OPTIONS)
    if kind() == WHOLE["made_by"]:
        for folder in (run, tmp_path / "whole"):
            assert digest_of(read_weights(folder / "final.safetensors")) == WHOLE["digest"]
        assert resumed["errors"] == whole["errors"] == WHOLE["errors"]
    torch.testing.assert_close(  # elsewhere the first half has the rounding of another machine
        read_weights(run / "final.safetensors"),
        read_weights(tmp_path / "whole" / "final.safetensors"),
        atol=0.1,
        rtol=0.1,
    )
