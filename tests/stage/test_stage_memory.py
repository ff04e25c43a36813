"""What a stage holds on the device goes when the stage is over, without waiting for the garbage collector."""

import gc
import weakref

import pytest

from fastres.track import pictures
from fastres.train import loop
from fastres.train import run as run_module
from tests.support.tiny_runs import train_tiny


@pytest.mark.parametrize(("extra", "draws"), [((), True), ((), False), (("--set", "ema=0.9"), False)])
def test_a_stage_is_gone_before_the_next_one_begins(packed, tmp_path, monkeypatch, extra, draws):
    """A captured graph's pool is 4 to 5 GB; of a cycle it would stay for as long as Python likes. We make none;
    matplotlib does, and the loop collects it."""
    if not draws:
        monkeypatch.setattr(pictures, "stem_filters", lambda *_: None)
        monkeypatch.setattr(loop.gc, "collect", lambda: 0)
    held, alive = [], []

    class Watched(run_module.StageRun):
        def __init__(self, *arguments):
            alive.append([reference for reference in held if reference() is not None])
            super().__init__(*arguments)
            held.extend(weakref.ref(thing) for thing in (self, self.step, self.step.optimizer, self.average))

    monkeypatch.setattr(run_module, "StageRun", Watched)
    gc.disable()
    try:
        train_tiny(packed, tmp_path / "run", "--no-evaluation", *extra)
        alive.append([reference for reference in held if reference() is not None])
    finally:
        gc.enable()
    assert len(alive) == 5 and alive == [[]] * 5
