"""The rate of a run follows its own top-1 error, by the paper's rule."""

from fastres.track.log import read_log
from fastres.train import loop
from tests.support.tiny_runs import train_tiny


def test_the_rate_follows_top_1_and_not_top_5(packed, tmp_path, monkeypatch):
    """Top-1 stands still from the first epoch on while top-5 falls: the rate is lowered after `patience` epochs."""
    told = iter([{"top1": 50.0, "top5": 40.0 - 2 * epoch} for epoch in range(20)])
    monkeypatch.setattr(loop, "judge", lambda *_, **__: (next(told), 1.0))
    epochs = "--set", "stages.0.epochs=6", *(f"stages.{stage}.epochs=1" for stage in (1, 2, 3))
    rule = "lr_policy.window=1", "lr_policy.patience=2", "lr_policy.least=0.5", "lr_policy.factor=0.1"
    train_tiny(packed, tmp_path / "run", *epochs, *rule)
    log = [record for record in read_log(tmp_path / "run" / "log.jsonl") if record["event"] == "epoch"]
    rates = [record["lr"] for record in log if record["stage"] == 0]
    assert [round(rate / rates[0], 6) for rate in rates] == [1, 1, 1, 0.1, 0.1, 0.01], rates
