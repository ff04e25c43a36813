"""reliability.md's table, made from what the tests did (faults.json).

python -m tests.support.fault_table            print it
python -m tests.support.fault_table --write    put it into fastres/docs/reliability.md
python -m pytest -m fault --record-faults [TESTS]    record anew, all or some
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parents[1] / "fastres" / "docs" / "reliability.md"
BEGIN, END = "<!-- faults -->\n", "\n<!-- end of faults -->"

FAULTS = {  # number: (fault, what happens)
    1: ("zip truncated", "3; sizes and md5 named, nothing written"),
    2: ("zip with one byte flipped", "3"),
    3: ("HTML saved as .zip", "3; says that the download failed"),
    4: ("zip member `../../x` or absolute", "3; nothing written outside"),
    5: ("val flat, in class folders, or doubly nested", "the same data"),
    6: ("grayscale, CMYK, PNG named .JPEG", "converted, counted in the manifest"),
    7: ("truncated, empty or text images", "3, all listed; `--on-bad skip` leaves them out and says so"),
    8: ("wrong image size", "3 with the image's name"),
    9: ("annotation lines missing, twice, CRLF, unknown", "CRLF accepted, the rest 3 with the line number"),
    10: ("wnids.txt reordered", "the same class indices"),
    11: ("SIGKILL of pack.py at any moment", "no half file, no orphan; the next run ends with the same digests"),
    12: ("disk full while packing", "4 with needed and free; clean"),
    13: ("1 or 16 workers", "the same bytes"),
    14: ("packed file truncated, flipped, empty, foreign", "3 before training; never a hang"),
    15: ("any engine, batch size, number of processes", "the same pixels, labels and ids; exactly N scored"),
    16: ("`--set` with an unknown name or a bad value", "2 with the nearest name, before data are read"),
    17: ("batch larger than the data", "one partial batch an epoch"),
    18: ("GPU, FFCV, DALI, W&B or weights asked for and not there; torch too old", "4 with the line to type"),
    19: ("run folder of another run, a finished one, a live one", "2 with the difference; its table, 0; 2 by its lock"),
    20: ("run folder not writable", "4 at the start"),
    21: ("SIGKILL at any moment, the same command again", "final weights bit-identical (CPU)"),
    22: ("SIGTERM or SIGINT; a second one", "checkpoint at the next step, 75; ends at once"),
    23: ("SIGKILL during a checkpoint write, 100 times", "the latest always loads"),
    24: ("newest checkpoint damaged; all damaged", "said, the one before is used; 3"),
    25: ("checkpoint or weights with pickled code", "3; not run"),
    26: (
        "disk full while saving",
        "said, the last good checkpoint stays; 4 at a stop, at the end, or where the log finds no room",
    ),
    27: ("NaN or infinite loss", "5; no update with it, a training loss's batch named, no checkpoint after it"),
    28: ("a loader thread or one of several processes dies", "all end within 60 s, not with 0"),
    29: ("W&B: no network, swallowed, bad key, killed, disk full", "the same exit code; `wandb sync` sends it later"),
    30: ("resume with other data, schedule, batch, seed or process count", "2 with the difference"),
    31: ("CUDA out of memory", "4 with peak and batch size; evaluation halves its batch and goes on"),
    32: ("photos stored turned, transparent, at 16 bits, in any format", "packed as people see them, and counted"),
    33: ("a tar, a zip from Windows, other files among the images, an empty class", "read and counted, or 3 by name"),
    34: ("weights of another program: prefixes, dicts in dicts, no head", "found and said, or 3 with what is missing"),
    35: ("weights that are not finite, of integers, sparse, with damaged metadata", "3 by the tensor's name"),
    36: ("a batch of one image where BatchNorm needs two", "2 with a size that works, before anything trains"),
    37: ("others' files, links, pipes where we write", "2 or 4; nothing of theirs is replaced, cut or removed"),
    38: ("a reader that leaves, closed or full streams, odd encodings, control characters", "the work's own exit code"),
    39: ("processes started with different settings, versions or data", "2 in all of them, with both values"),
    40: ("packed files that change or vanish under a run", "3 at the next batch or epoch; never a SIGBUS"),
    41: ("half an image with its end mark; 13,000 x 13,000 pixels", "a bad image: 3, or left out and listed"),
    42: ("a pipe, a device or a socket in place of a file", "2 or 3 without opening it"),
    43: ("a manifest, labels or arrays with other contents than their digest's", "3 by the field"),
    44: ("log or checkpoints gone, of another run; a search's file damaged or locked", "restored and said, or 3 or 4"),
    45: (
        "SIGTERM, SIGINT or SIGHUP at any moment of any command",
        "75 with a sentence, cleaned up; nohup outlives it",
    ),
    46: ("rows, ids, views out of range; views of large sides", "refused by all four; within the derived bound"),
    47: ("schedules with fields of another type or sys.exit; $ and _ in names", "2 by the field; drawn as they are"),
    48: ("a minute of seeded chance: manifests, arrays, weights, images, command lines", "no exception but ours"),
}


def marked() -> dict[str, set[int]]:
    """The faults each test is marked with, read from the source: {"test_x::test_y": {21}}."""
    found: dict[str, set[int]] = {}
    for path in sorted(FOLDER.parent.rglob("test_*.py")):
        source = path.read_text()
        of_all = {int(number) for number in re.findall(r"^pytestmark = pytest.mark.fault\((\d+)\)$", source, re.M)}
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                numbers = {
                    d.args[0].value
                    for d in node.decorator_list
                    if isinstance(d, ast.Call) and ast.unparse(d.func) == "pytest.mark.fault"
                }
                if numbers := numbers | of_all:
                    found[f"{path.stem}::{node.name}"] = numbers
    return found


def result(number: int, tests: dict[str, dict]) -> str:
    """What the recorded tests of one fault say together."""
    mine = [entry for entry in tests.values() if number in entry["faults"]]
    real = [entry for entry in mine if not entry["by_hand"]]
    failed, passed = sum(e["failed"] for e in mine), sum(e["passed"] for e in real)
    skipped = sorted({e["reason"] for e in real if e["skipped"]})
    if failed or not mine:
        return "**FAILED**" if failed else "**no test**"
    if not passed:
        by_hand = sum(e["passed"] for e in mine if e["by_hand"])
        also = f"; the error raised by hand: {by_hand} cases passed" if by_hand else ""
        return f"not runnable here ({', '.join(skipped)}){also}"
    left_out = f"; not here: {', '.join(skipped)}" if skipped else ""
    return f"survived, {passed} case{'s' if passed > 1 else ''}{left_out}"


def table(record: dict) -> str:
    """Markdown, one row a fault."""
    rows = [f"| {n} | {fault} | {what} | {result(n, record['tests'])} |" for n, (fault, what) in FAULTS.items()]
    where, dates = record["machine"], sorted(entry["date"] for entry in record["tests"].values())
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    note = (
        f"{where['processor']}, {where['cores']} cores, {where['gpu'] or 'no GPU'}, torch {where['torch']}, "
        f"Python {where['python']}, {when}."
    )
    head = ["| # | fault | what happens (numbers: exit codes) | seen |", "|---:|---|---|---|"]
    return "\n".join([*head, *rows, "", note])


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--write", action="store_true", help="replace the table in fastres/docs/reliability.md")
    args = p.parse_args(argv)
    text = table(json.loads((FOLDER / "faults.json").read_text()))
    if not args.write:
        print(text)
        return 0
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
