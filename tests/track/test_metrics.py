"""The one table of metrics: what W&B, its workspace and the local dashboard take from it."""

import json

from fastres.track import metrics, workspace
from fastres.track.charts import image_charts
from fastres.track.metrics import EPOCHS, IMAGES, METRICS, Metric, point
from fastres.track.mirror_child import started
from fastres.track.run_view import RunView

# An epoch's record of log.jsonl, as train/run.py writes it on a GPU whose peak is known.
EPOCH = {
    "stage": 1, "stage_name": "all", "epoch": 2, "epoch_total": 5, "lr": 0.125, "train_loss": 1.5,
    "val_top1_err": 40.0, "val_top5_err": 12.0, "val_loss": 1.25, "train_s": 8.0, "wait_s": 1.0, "val_s": 2.0,
    "images_seen": 640, "img_per_s": 80.0, "data_wait_pct": 12.5, "gpu_mem_gb": 3.0, "mfu_pct": 40.0,
}  # fmt: skip


def test_a_record_becomes_one_point_on_each_axis():
    assert point(EPOCH, IMAGES) == {
        "train/loss": 1.5, "lr": 0.125, "stage/index": 1, "images_seen": 640, "speed/img_per_s": 80.0,
        "speed/data_wait_pct": 12.5, "speed/gpu_mem_gb": 3.0, "speed/mfu_pct": 40.0,
    }  # fmt: skip
    assert point(EPOCH, EPOCHS) == {
        "val/top1_err": 40.0, "val/top5_err": 12.0, "val/loss": 1.25, "stage/index": 1, "epoch": 5,
    }  # fmt: skip
    warming_up = {name: EPOCH[name] for name in ("stage", "epoch", "lr", "train_loss", "images_seen")}
    assert set(point(warming_up, IMAGES)) == {"train/loss", "lr", "stage/index", "images_seen"}


def test_names_and_columns_are_unique_and_groups_come_last():
    names, columns = [m.name for m in METRICS], [m.column for m in METRICS if m.column]
    assert len(set(names)) == len(names) and len(set(columns)) == len(columns)
    groups = [name.endswith("/*") for name in names]
    assert groups == sorted(groups), "in W&B the first match wins"
    assert {m.axis for m in METRICS} == {None, EPOCHS, IMAGES} <= {*names, None}


def test_a_metric_more_is_one_row(tmp_path, monkeypatch):
    row = Metric(
        "speed/watts", "watts", IMAGES, "mean", "Power", "W", (metrics.THROUGHPUT, None), chart=7, pinned="mean"
    )
    monkeypatch.setattr(metrics, "METRICS", (row, *METRICS))
    record = {"event": "epoch", **EPOCH, "watts": 350.0}
    assert point(record, IMAGES)["speed/watts"] == 350.0 and "speed/watts" not in point(record, EPOCHS)
    view = json.dumps(workspace.as_json(workspace.workspace("project", "entity")))
    assert '"speed/watts"' in view and '"Power"' in view and "summary:speed/watts.mean" in view
    charts = image_charts([RunView(tmp_path, "a run", {}, {}, [record], live=False)])
    assert list(charts)[-1] == "Power" and "Power" in charts["Power"] and ">W<" in charts["Power"]
    assert ("speed/watts", IMAGES, "mean") in metrics.definitions()


def test_the_process_that_talks_to_wandb_defines_what_the_message_says(tmp_path):
    defined = []

    class Wandb:
        """What `started` uses of the module."""

        dir = str(tmp_path / "files")

        class Settings:
            model_fields: dict = {}

        def init(self, **_):
            return self

        def define_metric(self, name, step_metric, summary):
            defined.append((name, step_metric, summary))

    opening = dict.fromkeys(("dir", "project", "name", "id", "config", "tags"))
    sent = json.loads(json.dumps({**opening, "metrics": metrics.definitions()}))
    started(Wandb(), sent, "offline", lambda **_: None)
    assert defined == metrics.definitions() and len(defined) == 16
