"""The paper's tables from runs by system, with the paper's figures beside ours; cells are numbers until shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastres.evaluate.combining import COMBINATIONS, METHODS
from fastres.evaluate.gate import Gate
from fastres.machine.console import as_text
from fastres.machine.console import table as aligned
from fastres.model.flop import unit_for
from fastres.schedules import SCHEDULES
from fastres.study.findings.measures import Spread, spread, spread_of, uncertainty
from fastres.study.findings.runs import Trained
from fastres.track import page
from fastres.views.geometry import Geometry

NO_TEST = "Test labels are not public: our test answers are written by `evaluate --submission`."
TABLE_1_SYSTEM = "initialized-fc"  # "FC initialized finetuning but no size adaptation"
_GATED, _HELD_OUT = (
    ("all_views", "centre", "error", "views"),
    ("held_out", "held_out_views"),
)  # fields of evaluate.gate.Gate
TABLE_1_OWN = {"12-crop top1": 26.8, "12-crop test top1": 32.0}  # Table 2 has 26.83 and 32.1 for the same model


@dataclass(frozen=True)
class Table:
    """Rows of text, numbers, Spread or None under a header; `note` says what a reader must know."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple] = field(default_factory=list)
    note: str = ""
    shown: int | None = None  # rows that a reader sees at once; None: all

    def text(self) -> str:
        lines = [self.title, aligned(self.rows[: self.shown], self.header)]
        if self.shown is not None and len(self.rows) > self.shown:
            lines.append(f"the first {self.shown} of {len(self.rows)}; report.html has all")
        return "\n".join(lines)

    def html(self) -> str:
        rows = [[as_text(cell) for cell in row] for row in self.rows]
        return page.folded_table(self.header, rows, self.shown or len(rows), self.title, self.note)

    def plain(self) -> dict:
        rows = [[cell.plain() if isinstance(cell, Spread) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "header": list(self.header), "rows": rows, "note": self.note}


def expected(systems: dict[str, list[Trained]], system: str, name: str) -> float | None:
    """The paper's figure, None where it has none, or beside somebody's own data."""
    schedule, runs = SCHEDULES.get(system), [run for mine in systems.values() for run in mine]
    return schedule.expected.get(name) if schedule and not any(run.own for run in runs) else None


def table_1(systems: dict[str, list[Trained]]) -> Table:
    """The four crop methods on the model before size adaptation."""
    runs, rows = systems.get(TABLE_1_SYSTEM, []), []
    for method in METHODS:
        top1 = spread(runs, f"{method} top1")
        top5s, top1s, tests = (
            expected(systems, TABLE_1_SYSTEM, name) and TABLE_1_OWN.get(name, expected(systems, TABLE_1_SYSTEM, name))
            for name in (f"{method} top5", f"{method} top1", f"{method} test top1")
        )
        rows.append(
            (
                method,
                spread(runs, f"{method} top5"),
                top5s,
                top1,
                uncertainty(runs, top1) if top1 else None,
                top1s,
                tests,
            )
        )
    return Table(
        "Table 1: crop methods at test time, error in %",
        ("crop method", "val top-5", "paper", "val top-1", "s.e.", "paper", "paper, test"),
        rows,
        f"On {TABLE_1_SYSTEM}; ± over seeds, s.e.: standard error from validation images and seeds. {NO_TEST}",
    )


def table_2(systems: dict[str, list[Trained]]) -> Table:
    """All systems, with what they cost."""
    most = max((run.spent()[-1] for runs in systems.values() for run in runs if run.flop and run.epochs), default=0.0)
    size, unit = unit_for(most)
    rows = []
    for name, runs in systems.items():
        top1 = spread(runs, "12-crop top1")
        done = [run for run in runs if run.status == "done" and run.epochs]
        epochs = sum(stage["epochs"] for stage in runs[0].schedule["stages"])
        spent = spread_of([run.spent()[-1] / size for run in done])
        rows.append(
            (
                name,
                len(runs),
                spread(runs, "12-crop top5"),
                expected(systems, name, "12-crop top5"),
                top1,
                uncertainty(runs, top1) if top1 else None,
                expected(systems, name, "12-crop top1"),
                expected(systems, name, "12-crop test top1"),
                spread(runs, "centre top1"),
                expected(systems, name, "centre top1"),
                epochs,
                spent.mean if spent else None,
                spread_of([run.summary["train_s"] for run in done]),
                fate(runs),
            )
        )
    header = (
        "system",
        "seeds",
        "val top-5",
        "paper",
        "val top-1",
        "s.e.",
        "paper",
        "paper, test",
        "centre top-1",
        "paper",
        "epochs",
        unit,
        "train s",
        "",
    )
    return Table(
        "Table 2: all systems, error in % (12-crop unless said)",
        header,
        rows,
        f"{unit}: arithmetic of training, shared stages counted for each system that contains them, the pretraining "
        f"not. Equal epochs are not equal compute. The paper has no final figure of conv1-naive (38 % on the centre "
        f"crop after one epoch) or of conv1-blank (not below 50 % in 15 epochs). {NO_TEST}",
    )


def combinations(systems: dict[str, list[Trained]], names: Sequence[str] = (TABLE_1_SYSTEM, "paper")) -> Table:
    """Section 5.3: ways to combine the scores of crops."""
    rows = []
    for name in names:
        runs = systems.get(name, [])
        if any(run.status == "done" for run in runs):
            for how in COMBINATIONS:
                rows.append((name, how, *(spread(runs, f"{m} top1 {how}") for m in ("10-crop", "12-crop"))))
    return Table(
        "Section 5.3: combining the crops, val top-1 error in %",
        ("system", "combined by", "10-crop", "12-crop"),
        rows,
        "The paper: the sum of e^score (expsum) remained the best, albeit by less than 1 %.",
    )


def gates(systems: dict[str, list[Trained]]) -> Table:
    """What further crops for unsure images alone would cost (evaluate/gate.py); no rows for runs of older versions."""
    rows = []
    for name, runs in systems.items():
        found = [run.summary["gate"] for run in runs if run.status == "done" and Gate.of(run.summary)]
        if not found:
            continue
        of = {key: spread_of([gate[key] for gate in found]) for key in (*_GATED, *_HELD_OUT)}
        fewer = len(METHODS["12-crop"]) / of["held_out_views"].mean  # the others are those that chose the threshold
        rows.append((name, len(found), *(of[key] for key in _GATED), fewer, *(of[key] for key in _HELD_OUT)))
    return Table(
        "Crops until the answer is sure: views an image, val top-1 error in %",
        ("system", "seeds", "12-crop", "centre", "gated", "views", "times fewer", "held out", "its views"),
        rows,
        "The threshold has the fewest views at an error of at most 0.1 points more than all twelve have, on the same "
        "images. Held out, and times fewer: each half of the images by the threshold of the other half.",
    )


def stage_speeds(systems: dict[str, list[Trained]]) -> Table:
    """Seconds and img/s of every stage that was trained, not taken over."""
    rows = []
    for name, runs in systems.items():
        done = [run for run in runs if run.status == "done" and run.epochs]
        for index, stage in enumerate(runs[0].schedule["stages"]):
            own = [run for run in done if index >= run.shared]
            if own:
                rows.append(
                    (
                        name,
                        stage["name"],
                        stage["epochs"],
                        Geometry(own[0].side, stage["upscale"], stage.get("whole", False)).crop,
                        own[0].flop[index] / 1e9,
                        spread_of([run.summary["stages"][index]["train_s"] for run in own]),
                        f"{spread_of([run.summary['stages'][index]['img_per_s'] for run in own]).mean:,.0f}",
                        spread_of([run.summary["stages"][index]["val_top1_err"] for run in own]),
                    )
                )
    return Table(
        "Seconds and images per second of every stage",
        ("system", "stage", "epochs", "crop", "GFLOP/img", "train s", "img/s", "centre top-1 at its end"),
        rows,
        "Stages that a system takes over from another one are listed where they were trained.",
    )


def fate(runs: list[Trained]) -> str:
    """What became of the runs that have no result."""
    other = [run.status for run in runs if run.status != "done"]
    return ", ".join(f"{other.count(status)} {status}" for status in dict.fromkeys(other))
