"""A study's result: tables, verdicts and pictures from run folders, as data, as text and as one page."""

from collections.abc import Callable
from pathlib import Path

from fastres.machine import strict_json
from fastres.machine.errors import UsageError
from fastres.machine.files import write_atomic
from fastres.study.findings import own, tables
from fastres.study.findings.claims import Verdict, judge
from fastres.study.findings.crops import Answers, draw_answers, kinds_table
from fastres.study.findings.curves import FIGURES, CurveFigure, draw_curves
from fastres.study.findings.filters import draw_filters
from fastres.study.findings.notes import ONE_SEED, kind_of, label_of, notes_on_epochs, notes_on_nets, notes_on_rates
from fastres.study.findings.page import Section, file_of, page
from fastres.study.findings.result import Result
from fastres.study.findings.runs import Trained, by_system
from fastres.study.findings.tables import Table
from fastres.study.folder import claim_folder


def gather(
    runs: list[Trained],
    out: Path,
    answer: Callable[[dict], Answers | None],
    notes: list[str],
    shift: Callable[[dict], Table | None] = lambda _: None,
) -> Result:
    """Draw and tabulate `runs`; PNGs go to `out`. From the runs by system `answer` makes figure 7's answers, and
    `shift` the table of corrupted photos."""
    if other := next((run for run in runs if run.content_digest != runs[0].content_digest), None):
        raise UsageError(
            f"{runs[0].folder} and {other.folder}: trained on different data; expected runs on one data "
            "set; draw each by itself"
        )
    claim_folder(out)
    systems = by_system(runs)
    answers, shifted = answer(systems), shift(systems)  # which may add to `notes`
    kind = kind_of(runs)
    notes = [*notes, *notes_on_epochs(runs), *notes_on_rates(runs), *notes_on_nets(systems)]
    if kind == own.KIND:
        found, verdicts = own.make_tables(systems, answers, notes), []
        pictures = own.draw(systems, answers, out)
    else:
        found, pictures = _of_the_paper(systems, answers, out)
        verdicts = judge(systems, (answers.system, answers.wrong) if answers else None)
    if shifted is not None:
        found["shifted"] = shifted
    return Result(label_of(kind, runs), kind, systems, found, verdicts, pictures, notes)


def _of_the_paper(
    systems: dict[str, list[Trained]], answers: Answers | None, out: Path
) -> tuple[dict[str, Table], dict[str, Path]]:
    """The paper's tables and figures from these runs."""
    found = {
        "table 1": tables.table_1(systems),
        "table 2": tables.table_2(systems),
        "combinations": tables.combinations(systems),
        "stages": tables.stage_speeds(systems),
    }
    if (gates := tables.gates(systems)).rows:
        found["gates"] = gates
    pictures = {figure.key: draw_curves(figure, systems, out / file_of(figure.key)) for figure in FIGURES}
    pictures["figure 2"] = draw_filters(systems, out / file_of("figure 2"))
    if answers is not None:
        found["figure 7"] = kinds_table(answers)
        pictures["figure 7"] = draw_answers(answers, out / file_of("figure 7"))
    return found, {key: path for key, path in pictures.items() if path is not None}


def write(result: Result, out: Path, command: str) -> Path:
    """report.html and study.json in `out`; returns the page's path."""
    write_atomic(
        out / "study.json", (strict_json.dumps({"command": command, **result.plain()}, indent=1) + "\n").encode()
    )
    where = f" on the {result.kind.replace('-', ' ')}" if result.kind.endswith("world") else ""
    if result.kind == "part":
        where = f" on {result.systems[next(iter(result.systems))][0].data}"
    title, shown = f"Residual Networks for Tiny ImageNet: the study{where}", _sections
    if result.kind == own.KIND:
        title, shown = "Schedules side by side", _own_sections
    made = Section("How this was made", text="\n".join([command, *machine_lines(result)]))
    content = page(title, result.label, [*shown(result), made])
    write_atomic(out / "report.html", content.encode(errors="backslashreplace"))
    return out / "report.html"


def _own_sections(result: Result) -> list[Section]:
    return [*own.sections(result.tables, result.pictures, summary_lines(result)), *corrupted(result)]


def corrupted(result: Result) -> list[Section]:
    """The table of corrupted photos, where they were judged."""
    return [Section("Corrupted photos", tables=(result.tables["shifted"],))] if "shifted" in result.tables else []


def _sections(result: Result) -> list[Section]:
    def verdicts(where: str) -> tuple[Verdict, ...]:
        return tuple(v for v in result.verdicts if v.claim.where == where)

    def picture(key: str) -> Path | None:
        return result.pictures.get(key)

    found = result.tables
    curves = [
        Section(_heading(figure), figure.says, picture(figure.key), verdicts=verdicts(figure.key))
        for figure in FIGURES
        if picture(figure.key)
    ]
    return [
        Section("In short", text="\n".join(summary_lines(result))),
        Section(
            "Table 1",
            "Changes at test time move the validation error by 2 to 3 % (in its table by 1.8 and 2.1 points, from the "
            "centre crop to 10 and 12 crops); 12-crop is the best of the four throughout.",
            tables=(found["table 1"],),
            verdicts=verdicts("table 1"),
        ),
        Section(
            "Table 2",
            "Naive fine-tuning and fixed feature extractors stay near 49 %; staged fine-tuning reaches "
            "26.83 %, with size adaptation 24.99 %.",
            tables=(found["table 2"],),
            verdicts=verdicts("table 2"),
        ),
        *curves,
        Section(
            "Section 5.2: a blank first layer",
            "It diverged above 50 % at once, and did not return below in 15 epochs (not drawn in the paper).",
            verdicts=verdicts("section 5.2"),
        ),
        Section("Figure 2", "The 7×7 filters are basic Gabor patterns, which scale to 3×3.", picture("figure 2")),
        Section(
            "Figure 7",
            "Full and centre crop miss local clues, 10-crop misses what no crop holds; 12-crop has "
            "both, but fails in extreme cases.",
            picture("figure 7"),
            tuple(found[key] for key in ["figure 7"] if key in found),
        ),
        Section(
            "Section 5.3: combination",
            "The sum of e^score remained optimal, by less than 1 %.",
            tables=tuple(found[key] for key in ("combinations", "gates") if key in found),
            verdicts=verdicts("section 5.3"),
        ),
        *corrupted(result),
        Section(
            "Cost",
            "On a GRID K520: naive fine-tuning 9 epochs in 4 hours, the 18-layer feature extractor to 50 % "
            "in 54 minutes, the final model's 32 epochs in slightly under 13 hours.",
            tables=(found["stages"],),
        ),
    ]


def summary_lines(result: Result) -> list[str]:
    """What agrees, what does not, what is open: computed from the verdicts."""
    measured = [v for v in result.verdicts if v.word != "not measured"]
    if result.kind == own.KIND:
        lines = own.in_short(result.systems)
    else:
        lines = [
            f"{len(result.systems)} systems, {sum(map(len, result.systems.values()))} runs; of the paper's "
            f"{len(result.verdicts)} comparisons {len(measured)} could be made"
        ]
    for word, heading in (
        ("disagrees", "These runs disagree with the paper:"),
        ("agrees", "They agree:"),
        ("open", "Open, these runs cannot tell:"),
    ):
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
    """For the terminal: the label, the first three tables, the verdicts, where things are."""
    return "\n\n".join(
        [
            result.label,
            *(table.text() for table in list(result.tables.values())[:3]),
            "\n".join(summary_lines(result)),
            "\n".join([*(f"picture {path}" for path in result.pictures.values()), f"report {page_path}"]),
        ]
    )


def _heading(figure: CurveFigure) -> str:
    """With the paper's number where it has one."""
    return f"{figure.key.capitalize()}: {figure.title}" if figure.key.startswith("figure") else figure.title
