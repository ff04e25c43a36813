"""The paper's randomized hyperparameter search (section 5.4): many short runs, judged after three epochs.

    python -m fastres search --schedule paper --trials 20
    python -m fastres search --schedule demo --data packed-small-world --sampler tpe --out runs/live/search

The same command again goes on where it stopped, with more --trials too; several at once share the work. The best
settings are written as a schedule file, and the same space as a W&B sweep. Needs Optuna: pip install 'fastres[search]'
"""

import argparse
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fastres.data.engines import ENGINES
from fastres.data.manifest import load_manifest
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.console import show_kept, table
from fastres.machine.device import CHOICES, choose_device, choose_precision
from fastres.machine.errors import UsageError
from fastres.schedules.writing import write_schedule
from fastres.stage.rehearsal import rehearse
from fastres.study.search import results
from fastres.study.search.space import first_epochs, paper_space
from fastres.study.search.trials import SAMPLERS, Search, library
from fastres.train.options import Options, resolve


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", default="paper", metavar="NAME|FILE.py", help="what is searched around")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="trials in all, failed ones too (default 20)")
    p.add_argument("--epochs", type=int, default=3, metavar="N", help="a trial is judged after these (default 3)")
    p.add_argument("--sampler", choices=SAMPLERS, default="random", help="random is the paper's")
    p.add_argument("--out", type=place, metavar="DIR", help="default runs/live/search-<schedule>")
    p.add_argument("--data", type=place, default=Path("packed"), metavar="DIR", help="packed folder (default packed)")
    p.add_argument("--weights", metavar="FILE", help="pretrained weights, as in train")
    p.add_argument("--seed", type=int, default=0, help="of the draws and of every trial's training")
    p.add_argument("--set", action="extend", nargs="+", default=[], metavar="A.B=C", help="override, as in train")
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto")
    p.add_argument("--json", action="store_true", help="print the best as one JSON object")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.trials < 1:
        raise UsageError(f"--trials {args.trials}: expected 1 or more")
    library()
    schedule = resolve(args.schedule, args.set, args.weights)
    run = Options(
        schedule=schedule,
        data=args.data,
        seed=args.seed,
        engine=args.engine,
        device=args.device,
        precision=args.precision,
    )
    cut = first_epochs(schedule, args.epochs)
    space = paper_space(cut)
    manifest = load_manifest(args.data)
    # what is wrong with the schedule is said before any trial
    rehearse(cut, manifest.num_classes, manifest.side, wnids=manifest.wnids, images=manifest.count("train"))
    precision = choose_precision(args.precision, choose_device(args.device))
    out = args.out or Path("runs/live") / f"search-{schedule.name}"
    config = {
        "schedule": cut.to_dict(),
        "content_digest": manifest.content_digest,
        "precision": precision.name,
        "device": precision.device.type,
        "seed": args.seed,
        "sampler": args.sampler,
        "engine": args.engine,
        "space": {name: asdict(kind) for name, kind in space.items()},
        "draws": "numbered by what was drawn",
    }
    search = Search(cut, space, out, partial(replace, run), config, args.sampler, args.seed)
    study = search.open()
    short = write_schedule(out / "first_epochs.py", cut, f"What every trial of the search in {out} starts from.")
    sweep = results.write_sweep(out / "sweep.yaml", space, short, replace(run, schedule=cut), args.trials)
    search.run(study, args.trials)
    result = results.best_of(study, schedule, args.epochs)
    result["schedule_file"] = str(results.write_best(out / "best.py", schedule, result))
    result["sweep"] = str(sweep)
    result["pictures"] = [str(path) for path in results.draw(study, out / "pictures")]
    show_kept(strict_json.dumps(result) if args.json else as_text(result), out)
    return 0


def as_text(result: dict) -> str:
    """The best settings, how sure they are, and where things are."""
    best = result["best"]
    rows = [[name, f"{value:.4g}"] for name, value in best["settings"].items()]
    return "\n".join(
        [
            table(rows, ["setting", "best"]),
            "",
            f"trial {best['number']} of {result['trials']} ({result['failed']} did not train): "
            f"{best['val_top1_err']:.2f} +- {best['standard_error']:.2f} % centre-crop error after {result['epochs']} "
            "epochs."
            f"{results.untried(result)}",
            *(f"picture {path}" for path in result["pictures"]),
            f"W&B sweep {result['sweep']}",
            f"train it: python -m fastres.train --schedule {result['schedule_file']}",
        ]
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
