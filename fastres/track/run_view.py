"""A run's folder as a reader sees it, finished or still going: files only, nothing is locked or written."""

import math
import os
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fastres.machine.errors import DataError
from fastres.machine.folders import strangers
from fastres.track.log import read_log
from fastres.track.run_config import as_written, is_lock, read_object
from fastres.track.run_dir import live_process
from fastres.track.windows import window_losses


@dataclass(frozen=True)
class Border:
    """Where a stage ends on either axis; `name` is the stage's."""

    name: str
    epoch: float
    images: float | None


@dataclass(frozen=True)
class RunView:
    """What config.json, log.jsonl, summary.json and pictures/ of a run say now."""

    path: Path
    label: str
    config: dict
    summary: dict
    records: list[dict]
    live: bool

    @classmethod
    def read(cls, path: Path, label: str | None = None) -> "RunView":
        """DataError where `path` is no run's folder or where its files are damaged."""
        path = Path(path)
        live = live_process(path) is not None  # before the files: a run that ends meanwhile is then read once more
        config = read_object(path / "config.json", "give another run folder")
        if config is None:
            raise DataError(
                f"{path}: has no config.json, so it is no run's folder; expected one that train made, "
                "such as runs/live/paper-s0 (`show --watch` waits for a run that has not begun)"
            )
        summary = read_object(path / "summary.json", "remove it, and train's command writes it again") or {}
        view = cls(path, label or path.name, config, summary, read_log(path / "log.jsonl"), live)
        with as_written(path):  # what is shown of them later, looked at here where a fault has its sentence
            view.borders(), view.position, view.expected.items(), view.schedule.items()
            [float(record["val_top1_err"] or 0) for record in view.epochs]
            window_losses(view.points)
            [combination.items() for combination in summary.get("errors", {}).values()]
        return view

    @property
    def schedule(self) -> dict:
        return self.config.get("schedule", {})

    @property
    def expected(self) -> dict:
        """The paper's figures for this run: {} where its data are not the paper's, or an older run does not say."""
        if self.status == "done":
            return self.summary.get("expected", {})
        return self.schedule.get("expected", {})

    @property
    def own_data(self) -> bool:
        """Whether it was trained on somebody's own data; an older run, or one that is not done, does not say."""
        return bool(self.summary.get("own_data"))

    @property
    def epochs(self) -> list[dict]:
        """The epoch records, oldest first."""
        return [record for record in self.records if record["event"] == "epoch"]

    @property
    def points(self) -> list[dict]:
        """Records on the axis of images, in order: those inside epochs and those at their ends."""
        return [record for record in self.records if record["event"] in ("step", "epoch") and "images_seen" in record]

    @property
    def status(self) -> str:
        """running, done, preempted, diverged, failed, or killed where it ended without a word."""
        return "running" if self.live else self.summary.get("status", "killed")

    @property
    def position(self) -> str:
        """Such as "stage 2/4 all, epoch 3/10"."""
        started = [record for record in self.records if record["event"] == "stage"]
        if not started:
            return "before its first stage"
        stage, mine = started[-1], [r for r in self.epochs if r["stage"] == started[-1]["stage"]]
        of = len(self.schedule.get("stages", [])) or "?"
        return f"stage {stage['stage'] + 1}/{of} {stage['name']}, {len(mine)} of {stage['epochs']} epochs"

    def borders(self) -> list[Border]:
        """The end of every stage that has an epoch."""
        ends = [list(records)[-1] for _, records in groupby(self.epochs, key=lambda record: record["stage"])]
        return [Border(end["stage_name"], end["epoch_total"], end.get("images_seen")) for end in ends]

    def series(self, records: list[dict], x: str, y: str) -> tuple[list[float], list[float]]:
        """Columns `x` and `y` of `records`; what is not finite leaves a gap."""
        kept = [record for record in records if x in record and y in record]
        return [record[x] for record in kept], [math.nan if r[y] is None else r[y] for r in kept]


def yet_to_begin(path: Path) -> bool:
    """Whether a run may still begin in `path`: nothing is there, or no more than a run's first moments leave."""
    return not (path / "config.json").exists() and not strangers(path, is_lock)


def read_runs(paths: list[Path]) -> list[RunView]:
    """Every run, with the shortest label that tells them apart: their folder's name, or their path."""
    names = [Path(os.path.realpath(path)).name for path in paths]
    labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return [RunView.read(path, label) for path, label in zip(paths, labels, strict=True)]
