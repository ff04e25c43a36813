"""Every metric of a run, once: what it is called, what it is drawn over, and where it is shown.

A new metric is a row here and the line that computes it: a field of the records that train/run.py and train/epochs.py
log, or a reading of stage/speed.py. log.jsonl, the W&B mirror, its workspace and the local dashboard (track/show.py)
take it from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

EPOCHS, IMAGES, STAGE = "epoch", "images_seen", "stage/index"
TOP1 = "val/top1_err"
ACCURACY, THROUGHPUT = "Accuracy", "Throughput"
FINAL_TOP1, FINAL_TOP5 = "final/12crop_top1_err", "final/12crop_top5_err"


@dataclass(frozen=True)
class Metric:
    """One row.

    name     as W&B knows it; `group/*` stands for all others of a group
    column   its field in the records of log.jsonl; None where it is a figure of the finished run, or a group
    axis     the metric it is drawn over: EPOCHS (over all stages) or IMAGES (training images seen)
    summary  what stands for it in W&B's table of runs; None leaves that to W&B
    title    of its panel in the W&B workspace, which metrics of one title share, and of its chart in the dashboard
    unit     what the y axis says, in both
    panel    section of the workspace, and the height of one stage in the staircase behind the curves (None: without)
    chart    its place among the dashboard's charts over IMAGES; with `chart_unit` the y axis says that instead
    pinned   which of its summaries is a fixed column of W&B's table of runs; "" for a figure of the finished run
    """

    name: str
    column: str | None = None
    axis: str | None = None
    summary: str | None = None
    title: str = ""
    unit: str = ""
    panel: tuple[str, int | None] | None = None
    chart: int | None = None
    chart_unit: str = ""
    pinned: str | None = None


# In W&B the first match wins, so the groups come last. Panels and pinned columns are in this order.
METRICS = (
    # name, column, axis, summary, title, unit, panel
    Metric(FINAL_TOP1, pinned=""),
    Metric(FINAL_TOP5, pinned=""),
    Metric(EPOCHS, "epoch_total", None, "max"),
    Metric(IMAGES, "images_seen", None, "max"),
    Metric(TOP1, "val_top1_err", EPOCHS, "min,last", "Validation error", "error (%)", (ACCURACY, 10), pinned="min"),
    Metric("val/top5_err", "val_top5_err", EPOCHS, "min,last", "Validation error", "error (%)", (ACCURACY, 10)),
    Metric("train_s", pinned=""),
    Metric("train/loss", "train_loss", IMAGES, "min,last", "Training loss", "loss", (ACCURACY, 1)),
    Metric("val/loss", "val_loss", EPOCHS, "min,last", "Validation loss", "loss", (ACCURACY, 1)),
    Metric("lr", "lr", IMAGES, "min,max,last", "Learning rate", "rate", (ACCURACY, None), chart=4),
    Metric(STAGE, "stage", EPOCHS, "last", "Stage", "stage", (THROUGHPUT, None)),
    Metric("speed/img_per_s", "img_per_s", IMAGES, "max,mean,last", "Training speed", "img/s", (THROUGHPUT, None),
           chart=1, pinned="mean"),
    Metric("speed/data_wait_pct", "data_wait_pct", IMAGES, "max,mean,last", "Waiting for data",
           "share of training time (%)", (THROUGHPUT, 10), chart=2),
    Metric("speed/mfu_pct", "mfu_pct", IMAGES, "max,mean,last", "Share of the GPU's peak (MFU)", "%", (THROUGHPUT, 10),
           chart=6),
    Metric("speed/gpu_mem_gb", "gpu_mem_gb", IMAGES, "max", "GPU memory", "GB", (THROUGHPUT, None),
           chart=5, chart_unit="most so far (GB)"),
    Metric("val/*", axis=EPOCHS),
    Metric("stage/*", axis=EPOCHS),
    Metric("train/*", axis=IMAGES),
    Metric("speed/*", axis=IMAGES),
)  # fmt: skip


def definitions() -> list[tuple[str, str | None, str | None]]:
    """(name, axis, summary) of what W&B is told when a run is opened."""
    return [(metric.name, metric.axis, metric.summary) for metric in METRICS if metric.axis or metric.summary]


def point(record: Mapping, axis: str) -> dict:
    """What W&B is sent of a record of log.jsonl: its metrics over `axis`, the axis itself, and the stage."""
    return {
        metric.name: record[metric.column]
        for metric in METRICS
        if metric.column in record and (metric.axis == axis or metric.name in (axis, STAGE))
    }


def charts() -> list[Metric]:
    """What the local dashboard draws over training images, in the order of its page."""
    return sorted((metric for metric in METRICS if metric.chart), key=lambda metric: metric.chart)


def panels(section: str) -> list[tuple[Metric, ...]]:
    """The panels of one section of the W&B workspace: the metrics that share each, in order."""
    titled: dict[str, list[Metric]] = {}
    for metric in METRICS:
        if metric.panel and metric.panel[0] == section:
            titled.setdefault(metric.title, []).append(metric)
    return [tuple(group) for group in titled.values()]


def pinned() -> list[str]:
    """The fixed columns of W&B's table of runs, as W&B names a run's summary."""
    named = [(metric.name, metric.pinned) for metric in METRICS if metric.pinned is not None]
    return [f"{name}.{summary}" if summary else name for name, summary in named]
