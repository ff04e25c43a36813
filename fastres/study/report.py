"""A study's result: tables, verdicts and pictures from run folders, as data, as text and as one page."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from fastres.errors import UsageError
from fastres.files import write_atomic
from fastres.schedule_types import Plateau
from fastres.study import tables
from fastres.study.claims import Verdict, judge
from fastres.study.crops import Answers, draw_answers, kinds_table
from fastres.study.curves import FIGURES, CurveFigure, draw_curves
from fastres.study.filters import draw_filters
from fastres.study.page import Section, page
from fastres.study.runs import REAL, Trained, by_system
from fastres.study.tables import Table

LABELS = {
    "small-world": "The procedural small world",
    "large-world": "The procedural world in Tiny ImageNet's size",
    "paper": "Tiny ImageNet. It is a subset of ImageNet, so a pretrained network has seen its images: true of these "
    "figures, of the paper's, and of everybody's who starts there.",
    "other": "Neither Tiny ImageNet nor the small world: the paper's figures stand beside these for orientation only.",
}
PROCEDURAL = (
    " ({classes} classes of {side} pixels, networks of width {widths}): its errors neither confirm nor refute the "
    "paper's. The paper's figures, on Tiny ImageNet, stand beside them for orientation. Where the order of systems "
    "differs from the paper's, that is said below; the world was not tuned until it agrees."
)

ONE_SEED = (
    "With one seed, every standard error is that of the validation images alone; what another seed would change is in "
    "none of them."
)


@dataclass(frozen=True)
class Result:
    """All that a study found. `kind`: of its data, a key of LABELS; tables and pictures (PNG files) by key."""

    label: str
    kind: str
    systems: dict[str, list[Trained]]
    tables: dict[str, Table]
    verdicts: list[Verdict]
    pictures: dict[str, Path]
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict:
        """Fit for JSON: no paths but the pictures' names."""
        return {
            "label": self.label,
            "kind": self.kind,
            "tables": {key: table.plain() for key, table in self.tables.items()},
            "verdicts": [verdict.plain() for verdict in self.verdicts],
            "disagrees": [v.claim.text for v in self.verdicts if v.word == "disagrees"],
            "pictures": {key: path.name for key, path in self.pictures.items()},
            "notes": self.notes,
            "runs": [_plain_run(run) for runs in self.systems.values() for run in runs],
        }


def gather(runs: list[Trained], out: Path, answer: Callable[[dict], Answers | None], notes: list[str]) -> Result:
    """Draw and tabulate `runs`; PNGs go to `out`. `answer` makes figure 7's answers from the runs by system."""
    if other := next((run for run in runs if run.content_digest != runs[0].content_digest), None):
        raise UsageError(f"{runs[0].folder} and {other.folder}: trained on different data; expected runs on one data "
                         "set; draw each by itself")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    systems = by_system(runs)
    answers = answer(systems)
    found = {
        "table 1": tables.table_1(systems), "table 2": tables.table_2(systems),
        "combinations": tables.combinations(systems), "stages": tables.stage_speeds(systems),
    }  # fmt: skip
    pictures = {figure.key: draw_curves(figure, systems, out / _file(figure.key)) for figure in FIGURES}
    pictures["figure 2"] = draw_filters(systems, out / _file("figure 2"))
    if answers is not None:
        found["figure 7"] = kinds_table(answers)
        pictures["figure 7"] = draw_answers(answers, out / _file("figure 7"))
    kind = kind_of(runs)
    verdicts = judge(systems, (answers.system, answers.wrong) if answers else None)
    return Result(
        label=label_of(kind, runs), kind=kind, systems=systems, tables=found, verdicts=verdicts,
        pictures={k: p for k, p in pictures.items() if p is not None},
        notes=[*notes, *notes_on_rates(runs), *notes_on_nets(systems)],
    )  # fmt: skip


def notes_on_rates(runs: list[Trained]) -> list[str]:
    """In which runs the paper's rule lowered the rate: those have annealed, the others not."""
    ruled = [run for run in runs if run.schedule["lr_policy"]["kind"] == Plateau.__name__]
    lowered = [run for run in ruled if any(
        earlier["stage"] == later["stage"] and later["lr"] < earlier["lr"]
        for earlier, later in pairwise(run.epochs))]  # fmt: skip
    if not ruled or len(lowered) == len(ruled):
        return []
    named: dict[str, list[str]] = {}
    for run in lowered:
        named.setdefault(run.name, []).append(str(run.seed))
    where = ", ".join(f"{name} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for name, seeds in named.items())
    rule = "the rule that lowers the rate when the error stalls did so in"
    if not lowered:
        return [f"{rule} none of the {len(ruled)} runs that have it: all kept every stage's first rate"]
    return [f"{rule} {len(lowered)} of the {len(ruled)} runs that have it: {where}; the others kept every stage's "
            "first rate"]  # fmt: skip


def notes_on_nets(systems: dict[str, list[Trained]]) -> list[str]:
    """Which pretrained net each seed starts from, where that is not the same for all of a system."""
    dealt: dict[tuple, list[str]] = {}
    for name, runs in systems.items():
        nets = tuple((run.seed, Path(run.schedule["weights"]).name) for run in runs if run.schedule["weights"])
        dealt.setdefault(nets, []).append(name)
    several = [nets for nets in dealt if len({net for _, net in nets}) > 1]
    notes = []
    for nets in several:
        seeds = {net: [str(seed) for seed, other in nets if other == net] for _, net in nets}
        said = "; ".join(f"seed{'s' * (len(its) > 1)} {', '.join(its)}: {net}" for net, its in seeds.items())
        notes.append(f"the pretrained net of {', '.join(dealt[nets])} is not the same for all seeds ({said}), so their "
                     "deviation has the pretraining's chance in it")  # fmt: skip
    return notes


def kind_of(runs: list[Trained]) -> str:
    """Which of LABELS the runs' data are."""
    if any(run.small for run in runs):
        return "large-world" if all((run.side, run.classes) == REAL for run in runs) else "small-world"
    return "paper" if all(run.real for run in runs) else "other"


def label_of(kind: str, runs: list[Trained]) -> str:
    """What every reader must know first."""
    widths = " and ".join(str(width) for width in sorted({run.schedule["width"] for run in runs}))
    facts = PROCEDURAL.format(classes=runs[0].classes, side=runs[0].side, widths=widths)
    return LABELS[kind] + (facts if kind.endswith("world") else "")


def write(result: Result, out: Path, command: str) -> Path:
    """report.html and study.json in `out`; returns the page's path."""
    write_atomic(out / "study.json", (json.dumps({"command": command, **result.plain()}, indent=1) + "\n").encode())
    where = f" on the {result.kind.replace('-', ' ')}" if result.kind.endswith("world") else ""
    title = f"Residual Networks for Tiny ImageNet: the study{where}"
    write_atomic(out / "report.html", page(title, result.label, _sections(result, command)).encode())
    return out / "report.html"


def _sections(result: Result, command: str) -> list[Section]:
    def verdicts(where: str) -> tuple[Verdict, ...]:
        return tuple(v for v in result.verdicts if v.claim.where == where)

    def picture(key: str) -> Path | None:
        return result.pictures.get(key)

    found = result.tables
    curves = [
        Section(_heading(figure), figure.says, picture(figure.key), verdicts=verdicts(figure.key))
        for figure in FIGURES if picture(figure.key)
    ]  # fmt: skip
    return [
        Section("In short", text="\n".join(summary_lines(result))),
        Section("Table 1", "10-crop and 12-crop gain 2 to 3 % over the default centre crop; 12-crop is the best of "
                "the four throughout.", tables=(found["table 1"],), verdicts=verdicts("table 1")),
        Section("Table 2", "Naive fine-tuning and fixed feature extractors stay near 49 %; staged fine-tuning reaches "
                "26.83 %, with size adaptation 24.99 %.", tables=(found["table 2"],), verdicts=verdicts("table 2")),
        *curves,
        Section("Figure 2", "The 7×7 filters are basic Gabor patterns, which scale to 3×3.", picture("figure 2")),
        Section("Figure 7", "Full and centre crop miss local clues, 10-crop misses what no crop holds; 12-crop has "
                "both, but fails in extreme cases.", picture("figure 7"),
                tuple(found[key] for key in ["figure 7"] if key in found)),
        Section("Section 5.3: combination", "The sum of e^score remained optimal, by less than 1 %.",
                tables=(found["combinations"],), verdicts=verdicts("section 5.3")),
        Section("Cost", "On a GRID K520: naive fine-tuning 9 epochs in 4 hours, the 18-layer feature extractor to 50 % "
                "in 54 minutes, the final model's 32 epochs in slightly under 13 hours.", tables=(found["stages"],)),
        Section("How this was made", text="\n".join([command, *machine_lines(result)])),
    ]  # fmt: skip


def summary_lines(result: Result) -> list[str]:
    """What agrees, what does not, what is open: computed from the verdicts."""
    measured = [v for v in result.verdicts if v.word != "not measured"]
    lines = [f"{len(result.systems)} systems, {sum(map(len, result.systems.values()))} runs; of the paper's "
             f"{len(result.verdicts)} comparisons {len(measured)} could be made"]  # fmt: skip
    for word, heading in (("disagrees", "These runs disagree with the paper:"), ("agrees", "They agree:"),
                          ("open", "Open, these runs cannot tell:")):  # fmt: skip
        those = [v for v in measured if v.word == word]
        if those:
            lines += [heading, *(f"  {v.claim.where}: {v.claim.text} ({v.figures})" for v in those)]
    if all(len(runs) == 1 for runs in result.systems.values()):
        lines.append(ONE_SEED)
    return [*lines, *result.notes]


def machine_lines(result: Result) -> list[str]:
    """Devices, precisions and torch versions of the runs."""
    summaries = [run.summary for runs in result.systems.values() for run in runs if run.status == "done"]
    return sorted({f"{s['device']}, {s['precision']}, torch {s['torch']}" for s in summaries})


def as_text(result: Result, page_path: Path) -> str:
    """For the terminal: the label, both tables, the verdicts, where things are."""
    return "\n\n".join([
        result.label, result.tables["table 1"].text(), result.tables["table 2"].text(),
        result.tables["combinations"].text(), "\n".join(summary_lines(result)),
        "\n".join([*(f"picture {path}" for path in result.pictures.values()), f"report {page_path}"]),
    ])  # fmt: skip


def copy_pictures(result: Result, folder: Path) -> None:
    """The PNGs, into a record."""
    for path in result.pictures.values():
        shutil.copy(path, folder / path.name)


def _heading(figure: CurveFigure) -> str:
    """With the paper's number where it has one."""
    return f"{figure.key.capitalize()}: {figure.title}" if figure.key.startswith("figure") else figure.title


def _file(key: str) -> str:
    return key.replace(" ", "_") + ".png"


def _plain_run(run: Trained) -> dict:
    """A run's own figures, without paths."""
    kept = ("errors", "count", "stages", "train_s", "val_s", "eval_s", "wall_s", "device", "precision", "torch",
            "commits")  # fmt: skip
    curve = ("epoch_total", "stage_name", "lr", "val_top1_err", "val_top5_err", "train_s")
    return {
        "system": run.name, "seed": run.seed, "status": run.status, "taken_over_stages": run.shared,
        "flop_per_image": list(run.flop), "images": run.images,
        **{key: run.summary[key] for key in kept if key in run.summary},
        "epochs": [{key: record[key] for key in curve} for record in run.epochs],
    }  # fmt: skip


