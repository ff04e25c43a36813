"""A study as a record in runs/, and study.md's table made from the newest of each kind."""

import json
import shutil
from pathlib import Path

from fastres.machine import facts, strict_json
from fastres.machine.device import choose_device
from fastres.study.findings import own
from fastres.study.findings.claims import CLAIMS
from fastres.study.findings.notes import ONE_SEED
from fastres.study.findings.report import summary_lines
from fastres.study.findings.result import Result
from fastres.track.record import record_folder

OF_DATA = ("figure 7", own.ANSWERS, "figure 2")  # pictures of validation images, or of weights that learned from data
COLUMNS = ("system", "seeds", "val top-1", "s.e.", "paper", "val top-5", "paper top-5", "epochs", "compute", "train s")


def record(root: Path, result: Result, command: str, device: str = "auto") -> Path:
    """Write root/<date>_study-...: study.json, the tables as text, the PNGs. Returns the folder.

    `device`: as --device said; MachineError where a GPU is here that torch cannot use, and it is not cpu.
    """
    machine = facts.machine(choose_device(device))
    folder = record_folder(root, f"study-{result.kind}", machine)
    content = {"command": command, "machine": machine, **result.plain()}
    (folder / "study.json").write_text(strict_json.dumps(content, indent=1) + "\n")
    tables = [f"```\n{table.text()}\n```\n\n{table.note}".rstrip() for table in result.tables.values()]
    verdicts = "```\n" + "\n".join(summary_lines(result)) + "\n```"
    (folder / "table.md").write_text("\n\n".join([f"`{command}`", result.label, *tables, verdicts]) + "\n")
    _copy_pictures(result, folder)
    return folder


def _copy_pictures(result: Result, folder: Path) -> None:
    """The PNGs, into a record; those of images and of filters only where images are drawn: photos are their owners'."""
    for key, path in result.pictures.items():
        if key not in OF_DATA or result.kind.endswith("world"):
            shutil.copy(path, folder / path.name)


def page_table(runs: Path) -> str:
    """What fastres/docs/study.md shows between its markers: Table 2 of the newest record of each kind of data, what
    disagrees, what a reader must know; and where the older records are."""
    found = [(json.loads(file.read_text()), file.parent) for file in sorted(runs.glob("*_study-*/study.json"))]
    if not found:
        return "No study has been recorded yet."
    newest = {content["kind"]: folder for content, folder in found}
    shown = [_markdown(*one) for one in reversed(found) if one[1] in newest.values()]
    older = [_older(*one) for one in reversed(found) if one[1] not in newest.values()]
    return "\n\n".join([*shown, *(["Older records:\n\n" + "\n".join(older)] if older else [])])


def _older(content: dict, folder: Path) -> str:
    rows = _systems(content)["rows"]
    seeds = max(row[1] for row in rows)
    return (
        f"- `runs/{folder.name}/`: {_data(content).replace('**', '')}; {len(rows)} systems, {seeds} "
        f"seed{'s' * (seeds > 1)}."
    )


def _data(content: dict) -> str:
    """Which data, and on what networks, from the label; the kind of data in bold."""
    what = content["label"].partition(")")[0].removeprefix("The procedural ").partition(" (")
    return f"**{what[0].capitalize()}**, {what[2]}" if what[2] else f"**{content['label'].partition('.')[0]}**"


def _markdown(content: dict, folder: Path) -> str:
    table, machine = _systems(content), content["machine"]
    lines = _as_it_is(table) if content["kind"] == own.KIND else _beside_the_paper(table)
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    trained = [run.get("commits") for run in content["runs"]]
    code = f"page made by the code of {machine['commit']}"
    if all(trained):
        code = f"trained by the code of {', '.join(sorted({one for some in trained for one in some}))}"
    head = f"{_data(content)}; {where}, {machine['date']}, {code}; the record is `runs/{folder.name}/`."
    if content["kind"] != own.KIND:
        # older records judge bounds on data that have none
        bounds = {claim.text for claim in CLAIMS if content["kind"] != "paper" and isinstance(claim.lower, float)}
        disagrees = "; ".join(text for text in content["disagrees"] if text not in bounds) or "none"
        head += f" What the paper says and this record contradicts, by more than twice the standard error: {disagrees}."
    seeds = {row[1] for row in table["rows"]}
    notes = [*content["notes"], *([ONE_SEED] if seeds == {1} else [])]
    said = [f"- {note[0].upper()}{note[1:].rstrip('.')}." for note in notes]
    return "\n".join([head, "", *lines, "", *said]).rstrip()


def _systems(content: dict) -> dict:
    """The table of systems, of whichever kind of data."""
    tables = content["tables"]
    return tables.get("systems") or tables["table 2"]


def _as_it_is(table: dict) -> list[str]:
    """Of one's own data: every column."""
    cells = [[str(cell) if isinstance(cell, str | int) else _cell(cell) for cell in row] for row in table["rows"]]
    lines = [table["header"], ["---", *["---:"] * (len(table["header"]) - 1)], *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _beside_the_paper(table: dict) -> list[str]:
    """COLUMNS of Table 2."""
    size = table["header"][11]
    lines = [f"| {' | '.join(COLUMNS).replace('compute', size)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
    for row in table["rows"]:
        name, seeds, top5, paper5, top1, error, paper1, _, _, _, epochs, spent, seconds, fate = row
        cells = [
            f"`{name}`",
            str(seeds),
            _cell(top1) if top1 else fate,
            _cell(error),
            _cell(paper1, 2),
            _cell(top5),
            _cell(paper5, 2),
            str(epochs),
            _cell(spent),
            _cell(seconds, 0),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(value, digits: int = 1) -> str:
    """A number, or a mean with its deviation over seeds."""
    if value is None:
        return "–"
    if not isinstance(value, dict):
        return f"{value:.{digits}f}"
    return f"{value['mean']:.{digits}f}" + ("" if value["std"] is None else f" ± {value['std']:.{digits}f}")
