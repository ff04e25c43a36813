"""The learning rate of each system by the same search, so that no system is judged at another one's rate.

    python -m fastres.study.search.tune --schedule FILE --shared N --out DIR [train's options]    # the study's call

Only the stages that are a system's own are searched, at one factor for all of them: those that it shares with a plainer
system have that one's rates and are trained once, so a trial starts from there. A trial has one epoch of each; three
epochs from the start would tell staged systems nothing but how to train a head.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from fastres.data.manifest import load_manifest
from fastres.machine import strict_json
from fastres.machine.arguments import place
from fastres.machine.command import run_command
from fastres.machine.device import choose_device, choose_precision
from fastres.machine.files import write_atomic
from fastres.schedules.types import Schedule
from fastres.study.findings.runs import Trained, system_of
from fastres.study.jobs import Job
from fastres.study.search.results import best_of
from fastres.study.search.space import Choice
from fastres.study.search.trials import Search, ended_trials
from fastres.track.run_config import read_object, refuse_different
from fastres.train import command
from fastres.train.options import Options

FACTORS = (1 / 9, 1 / 3, 1.0, 3.0)  # times what the schedule says
FACTOR = "rate factor"
WAIT_S = 1.0


class Rates:
    """What the searches of a study found, in a folder a system below `folder`; None: nothing is searched."""

    def __init__(self, folder: Path | None, where: dict | None = None) -> None:
        """`where`: what else decides a search's result, as `circumstances` gives it."""
        self._folder, self._where = folder, where or {}
        self.failed: set[str] = set()  # systems that diverge at every rate

    def folder(self, system: str) -> Path | None:
        """Where a system's search lies; None where nothing is searched."""
        return self._folder and self._folder / system

    def schedule(self, job: Job) -> Schedule | None:
        """What the job trains; None as long as a search that it waits for is not over. UsageError where the folder
        holds a search of another configuration."""
        if self._folder is None:
            return job.schedule
        given = self.before(job)
        if given is None or job.system in self.failed:
            return given
        found = read_object(self.folder(job.system) / "best.json", "remove it, and it is searched again")
        if found is None:
            return None
        ours = _config(brief(given, job.shared), job.shared, self._where)
        theirs = found.get("config", {})
        if job.seed:  # was searched with the first seed's net
            theirs = {**theirs, "schedule": {**theirs.get("schedule", {}), "weights": given.weights}}
        again = "choose another --out, or remove this folder to search again"
        refuse_different(theirs, ours, f"{self.folder(job.system)}: holds another search; {again}")
        return at_rate(given, job.shared, found["factor"])

    def before(self, job: Job) -> Schedule | None:
        """The job's schedule with the rates found for the stages it shares, and its own as they were."""
        if job.parent is None:
            return job.schedule
        found = self.schedule(job.parent)
        if found is None:
            return None
        return replace(job.schedule, stages=(*found.stages[: job.shared], *job.schedule.stages[job.shared :]))

    def note(self, systems: list[str]) -> list[str]:
        """A sentence on the rates for every set of them that was tried; none where nothing was searched."""
        found = {name: read_object(self.folder(name) / "best.json", "") for name in systems if self._folder}
        searched: dict[tuple, dict[float, list[str]]] = {}  # by the factors that were tried: the systems by the best
        for name, best in found.items():
            if best:
                chosen = searched.setdefault(tuple(best["config"]["factors"]), {})
                chosen.setdefault(best["factor"], []).append(system_of(name))
        return [_said(tried, chosen, len(searched) == 1) for tried, chosen in searched.items()]


def _said(tried: tuple[float, ...], chosen: dict[float, list[str]], every: bool) -> str:
    count = sum(map(len, chosen.values()))
    who = "each system's own stages have" if every else f"the own stages of {count} systems have"
    said = "; ".join(f"times {factor:.2g} for {', '.join(chosen[factor])}" for factor in tried if factor in chosen)
    edges = [name for factor in (min(tried), max(tried)) for name in chosen.get(factor, [])]
    beyond = f" (a rate beyond those tried may be better for {', '.join(edges)})" if edges else ""
    rates = ", ".join(f"{factor:.2g}" for factor in tried)
    return (
        f"{who} the best rate of {len(tried)}, by the same search (one epoch of each stage "
        f"at {rates} times the schedule's, centre-crop error, seed 0): {said}{beyond}"
    )


def rates_of(runs: list[Trained]) -> list[str]:
    """What the study that trained these runs says of their rates, where it searched them."""
    names: dict[Path, list[str]] = {}
    for run in runs:
        names.setdefault(run.folder.parent.parent / "tune", []).append(run.schedule["name"])
    return [note for folder, systems in names.items() for note in Rates(folder).note(list(dict.fromkeys(systems)))]


def at_rate(schedule: Schedule, shared: int, factor: float) -> Schedule:
    """`schedule` with the rates of its stages after the first `shared` times `factor`."""
    given = schedule.optimizer.lr
    own = (replace(s, lr=(given if s.lr is None else s.lr) * factor) for s in schedule.stages[shared:])
    return replace(schedule, stages=(*schedule.stages[:shared], *own))


def brief(schedule: Schedule, shared: int) -> Schedule:
    """One epoch of every stage but the first `shared`."""
    own = (replace(stage, epochs=1) for stage in schedule.stages[shared:])
    return replace(schedule, stages=(*schedule.stages[:shared], *own))


def circumstances(options: Options) -> dict:
    """What decides a search's result beside its schedule."""
    precision = choose_precision(options.precision, choose_device(options.device))
    return {
        "content_digest": load_manifest(options.data).content_digest,
        "engine": options.engine,
        "device": precision.device.type,
        "precision": precision.name,
    }


def _config(short: Schedule, shared: int, where: dict) -> dict:
    return {"schedule": short.to_dict(), "own stages from": shared, "factors": FACTORS, **where}


def search(schedule: Schedule, shared: int, out: Path, options: Callable[..., Options]) -> dict:
    """Try every factor; the best one and the error it was judged by, also in out/best.json. Resumable.

    `options`: makes a run of its schedule and folder, with start_from where the shared stages are trained. Diverged
    where no rate trains.
    """
    short = brief(schedule, shared)
    config = _config(short, shared, circumstances(options(schedule=short)))
    space = {FACTOR: Choice(FACTORS)}
    trials = Search(
        short,
        space,
        out,
        options,
        {**config, "space": {FACTOR: asdict(space[FACTOR])}},
        listed=tuple({FACTOR: factor} for factor in FACTORS),
        apply=lambda plain, settings: at_rate(plain, shared, settings[FACTOR]),
    )
    study = trials.open()
    trials.run(study, len(FACTORS))
    while len(ended_trials(study)) < len(FACTORS):  # another process has the last one; where it dies, we take it over
        time.sleep(WAIT_S)
        trials.run(study, len(FACTORS))
    best = best_of(study, schedule, short.epochs)["best"]
    found = {"factor": best["settings"][FACTOR], "val_top1_err": best["val_top1_err"], "config": config}
    write_atomic(out / "best.json", (strict_json.dumps(found, indent=1) + "\n").encode())
    return found


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        prog="python -m fastres.study.search.tune",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--shared", type=int, default=0, metavar="N", help="its first N stages stay as they are")
    p.add_argument("--out", type=place, required=True, metavar="DIR", help="trials, and best.json")
    args, rest = p.parse_known_args(argv)
    run = Options.of(command.parser().parse_args(rest))
    found = search(run.schedule, args.shared, args.out, partial(replace, run))
    print(f"rates times {found['factor']:.2g}: {found['val_top1_err']:.2f} % after one epoch of each stage")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
