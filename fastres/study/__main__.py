"""Every system of the paper, its tables and figures.

    python -m fastres.study paper                                  # on packed Tiny ImageNet, with a GPU
    python -m fastres.study paper --small-world                    # on the procedural stand-in, on any machine
    python -m fastres.study paper --quarter --source DIR           # at a quarter of its size, on real photos, on CPUs
    python -m fastres.study --figures runs/live/study/runs/*       # redraw, train nothing
    python -m fastres.study paper --check runs/live/paper-s0       # your own runs beside the paper's figures

The same command again goes on where it stopped. Stages that systems have in common are trained once. Writes
report.html, study.json and PNGs.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

from fastres.data.engines import ENGINES
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import say, show_kept
from fastres.machine.device import CHOICES
from fastres.machine.errors import DataError, UsageError
from fastres.study.findings import check, report
from fastres.study.findings.claims import judge
from fastres.study.findings.crops import answers
from fastres.study.findings.record import record
from fastres.study.findings.runs import read_runs
from fastres.study.findings.shift import shifts
from fastres.study.search.tune import rates_of
from fastres.study.training.prepare import train_all

STUDIES = ("paper",)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("study", nargs="?", choices=STUDIES, default="paper", help="which study; there is one")
    p.add_argument("--small-world", action="store_true", help="on the procedural stand-in, which is packed for it")
    p.add_argument("--quarter", action="store_true", help="at a quarter of its size, on real photos: see --source")
    p.add_argument(
        "--source",
        type=place,
        default=Path("tiny-imagenet-200"),
        metavar="DIR|ZIP",
        help="--quarter: the whole data set, unpacked or as its zip (default tiny-imagenet-200)",
    )
    p.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default 1)")
    p.add_argument("--schedules", metavar="A,B", help="names or files (default: every system)")
    p.add_argument(
        "--scale",
        type=float,
        metavar="F",
        help="epochs times F, each stage rounded up: with --small-world the demo's (default 2/3), with --quarter the "
        "paper's and the pretraining's (default 1)",
    )
    p.add_argument(
        "--net-scale", type=float, metavar="F", help="--quarter: the pretraining's epochs times F instead of --scale"
    )
    p.add_argument(
        "--tune",
        action="store_true",
        help="search each system's learning rate first, four short runs each; needs Optuna",
    )
    p.add_argument(
        "--jobs", type=int, metavar="N", help="runs at a time (default: one a core, up to 4, on a CPU; 1 on a GPU)"
    )
    p.add_argument("--out", type=place, metavar="DIR", help="default runs/live/study, -small-world or -quarter")
    p.add_argument("--data", type=place, metavar="DIR", help="packed folder (default packed, or <out>/world)")
    p.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="ARCH=FILE",
        help="pretrained nets; several of one architecture are dealt to the seeds in turn",
    )
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--set", action="extend", nargs="+", default=[], metavar="A.B=C", help="for all, as in train")
    p.add_argument("--figures", nargs="+", type=place, metavar="RUN", help="redraw from run folders, train nothing")
    p.add_argument("--check", nargs="+", type=place, metavar="RUN", help="compare runs on Tiny ImageNet with the paper")
    p.add_argument("--dry-run", action="store_true", help="what would be trained, and how long it takes here")
    p.add_argument("--shifted", action="store_true", help="judge every network on corrupted photos, too")
    p.add_argument("--record", type=place, metavar="DIR", help="write a dated folder with figures and pictures here")
    p.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return p


MOST = 1000  # seeds, runs at a time, times the epochs: more is a slip of the keyboard


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.shifted and (args.check or args.dry_run):
        raise UsageError("--shifted: is for the report, which --check and --dry-run do without; drop one of them")
    if args.figures and args.check:
        raise UsageError("--figures and --check: one of them at a time")
    if not 1 <= args.seeds <= MOST:
        raise UsageError(f"--seeds {args.seeds}: expected 1 to {MOST:,}")
    scales = (args.small_world or args.quarter) and not (args.figures or args.check)
    if args.scale is not None and not (0 < args.scale <= MOST and scales):
        raise UsageError(
            f"--scale {args.scale:g}: expected more than 0, at most {MOST:,}, and with --small-world or --quarter, "
            "where runs are trained"
        )
    if args.net_scale is not None and not (0 < args.net_scale <= MOST and args.quarter and scales):
        raise UsageError(
            f"--net-scale {args.net_scale:g}: expected more than 0, at most {MOST:,}, and with --quarter, where nets "
            "are pretrained"
        )
    if args.jobs is not None and not 1 <= args.jobs <= MOST:
        raise UsageError(f"--jobs {args.jobs}: expected 1 to {MOST:,}")
    if args.small_world and args.quarter:
        raise UsageError("--small-world and --quarter: one of them at a time")
    if args.quarter and args.data:
        raise UsageError("--quarter packs its own two halves of --source; leave --data away")
    name = "study-small-world" if args.small_world else "study-quarter" if args.quarter else "study"
    args.out = args.out or Path("runs/live") / name
    command = shlex.join(["python", "-m", "fastres.study", *(sys.argv[1:] if argv is None else argv)])
    if args.check:
        return print_check(args)
    return print_study(args, command)


def print_check(args: argparse.Namespace) -> int:
    """Every figure of the paper for these runs, then its comparisons. A row that does not hold is no fault."""
    rows, systems = check.check(args.check)
    verdicts = [verdict for verdict in judge(systems) if verdict.word != "not measured"]
    if args.json:
        print(
            strict_json.dumps(
                {
                    "rows": [row.plain() for row in rows],
                    "all_hold": check.all_hold(rows),
                    "verdicts": [verdict.plain() for verdict in verdicts],
                }
            )
        )
        return 0
    print(check.as_table(rows).text())
    print("\n".join(f"{v.claim.where}: {v.claim.text}: {v.word} ({v.figures})" for v in verdicts))
    print("every figure holds" if check.all_hold(rows) else "not every figure holds")
    return 0


def print_study(args: argparse.Namespace, command: str) -> int:
    """Train what is to be trained, then draw and tabulate. Exit code: 0, or that of the first run that failed."""
    folders, notes, code = args.figures, [], 0
    if not folders:
        done = train_all(args)
        if args.dry_run:
            print(strict_json.dumps(done.estimate) if args.json else done.text)
            return 0
        folders, notes, code = done.folders, done.notes, done.code
    runs = read_runs(folders)
    if args.figures:
        notes += rates_of(runs)

    def asked(find, lacking):
        """`find` of the runs' images; where those are not here to redraw from, a note on what is `lacking`."""
        try:
            return find(args.data, args.device, args.precision)
        except DataError as error:
            if args.data or not args.figures:
                raise
            notes.append(f"{lacking}: {error}")
            return None

    def answer(systems):
        what = "what the crop method changes" if runs[0].own else "figure 7"
        lacking = f"{what} is not drawn, and crop methods are not compared image by image"
        return asked(partial(answers, systems), lacking)

    def shift(systems):
        return asked(partial(shifts, systems), "no network is judged on corrupted photos") if args.shifted else None

    result = report.gather(runs, args.out, answer, notes, shift)
    page = report.write(result, args.out, command)
    show_kept(strict_json.dumps(result.plain()) if args.json else report.as_text(result, page), args.out)
    if args.record:
        say(f"recorded in {record(args.record, result, command, args.device)}")
    return code


if __name__ == "__main__":
    sys.exit(run_command(main))
