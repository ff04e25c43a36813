"""A study as a record in runs/, and the README's table made from the newest of each kind."""

import json
from pathlib import Path

import torch

from fastres.bench import harness, output
from fastres.study.report import ONE_SEED, Result, copy_pictures, summary_lines

COLUMNS = ("system", "seeds", "val top-1", "s.e.", "paper", "val top-5", "paper top-5", "epochs", "compute", "train s")


def record(root: Path, result: Result, command: str) -> Path:
    """Write root/<date>_study-...: study.json, the tables as text, the PNGs. Returns the folder."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = harness.machine(device)
    folder = output.record_folder(root, f"study-{result.kind}", machine)
    content = {"command": command, "machine": machine, **result.plain()}
    (folder / "study.json").write_text(json.dumps(content, indent=1) + "\n")
    tables = [f"```\n{table.text()}\n```\n\n{table.note}" for table in result.tables.values()]
    verdicts = "```\n" + "\n".join(summary_lines(result)) + "\n```"
    (folder / "table.md").write_text("\n\n".join([f"`{command}`", result.label, *tables, verdicts]) + "\n")
    copy_pictures(result, folder)
    return folder


def readme_table(runs: Path) -> str:
    """What README shows between its study markers: Table 2 of the newest record of each data set, what disagrees, and
    what a reader must know."""
    newest: dict[str, tuple[dict, Path]] = {}
    for file in sorted(runs.glob("*_study-*/study.json")):
        content = json.loads(file.read_text())
        newest[content["label"]] = content, file.parent  # the label says which data
    if not newest:
        return "No study has been recorded yet."
    return "\n\n".join(_markdown(*found) for found in reversed(newest.values()))


def _markdown(content: dict, folder: Path) -> str:
    table, machine = content["tables"]["table 2"], content["machine"]
    size = table["header"][11]
    lines = [f"| {' | '.join(COLUMNS).replace('compute', size)} |", f"|---|{'---:|' * (len(COLUMNS) - 1)}"]
    for row in table["rows"]:
        name, seeds, top5, paper5, top1, error, paper1, _, _, _, epochs, spent, seconds, fate = row
        cells = [f"`{name}`", str(seeds), _cell(top1) if top1 else fate, _cell(error), _cell(paper1), _cell(top5),
                 _cell(paper5), str(epochs), _cell(spent), _cell(seconds, 0)]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    where = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    what = content["label"].partition(")")[0].removeprefix("The procedural ").partition(" (")
    what = f"{what[0].capitalize()}**, {what[2]}" if what[2] else f"{content['label'].partition('.')[0]}**"
    disagrees = "; ".join(content["disagrees"]) or "none"
    trained = sorted({run["commit"] for run in content["runs"] if run.get("commit")})
    code = f"code of {', '.join(trained)}" if trained else f"drawn by {machine['commit']}"
    head = (
        f"**{what}; {where}, {machine['date']}, {code}; the record is `runs/{folder.name}/`. Comparisons "
        f"of the paper's that it contradicts by more than twice the standard error: {disagrees}."
    )
    seeds = {row[1] for row in table["rows"]}
    notes = [*content["notes"], *([ONE_SEED] if seeds == {1} else [])]
    said = [f"- {note[0].upper()}{note[1:].rstrip('.')}." for note in notes]
    return "\n".join([head, "", *lines, "", *said]).rstrip()


def _cell(value, digits: int = 1) -> str:
    """A number, or a mean with its deviation over seeds."""
    if value is None:
        return "–"
    if not isinstance(value, dict):
        return f"{value:.{digits}f}"
    return f"{value['mean']:.{digits}f}" + ("" if value["std"] is None else f" ± {value['std']:.{digits}f}")
