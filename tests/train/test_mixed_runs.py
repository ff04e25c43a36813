"""A run on resized, erased and mixed views: it learns, and where it was stopped makes no difference."""

import pytest
import torch

from fastres.machine.errors import Preempted
from fastres.model.weights import read_weights
from fastres.track.run_config import read_object
from tests.support.tiny_runs import stop_after, train_tiny

SETTINGS = ("views.crop=resized", "views.convention=half-pixel", "views.scale=0.3,1", "views.erasing=0.5",
            "views.mixup=0.4", "views.cutmix=1")  # fmt: skip
WORDS = ("--precision", "fp32", *(word for setting in SETTINGS for word in ("--set", setting)))


@pytest.mark.slow
def test_stopped_and_resumed_ends_in_the_same_bits(packed, tmp_path, monkeypatch):
    whole = train_tiny(packed, tmp_path / "whole", *WORDS)
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        stopped = train_tiny(packed, tmp_path / "run", *WORDS, code=Preempted.exit_code)
    assert stopped["status"] == "preempted"
    again = train_tiny(packed, tmp_path / "run", *WORDS)
    assert again["errors"] == whole["errors"]
    ends = [read_weights(tmp_path / name / "final.safetensors") for name in ("whole", "run")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    written = read_object(tmp_path / "run" / "config.json", "")["schedule"]["views"]
    assert written["scale"] == [0.3, 1] and written["mixup"] == 0.4 and written["ratio"] == [3 / 4, 4 / 3]


def test_another_mixture_is_another_run_and_an_odd_batch_is_refused(packed, tmp_path, capsys):
    train_tiny(packed, tmp_path / "run", "--set", "views.mixup=0.4", "--set", "batch_size=7", code=2)
    assert "batch_size is 7, expected an even number where views are mixed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
