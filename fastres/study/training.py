"""From the study's command line to trained runs: data, nets, schedules, jobs, their outcomes."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fastres.data.manifest import Manifest, load_manifest
from fastres.engine.precision import choose_device
from fastres.engine.rehearsal import rehearse
from fastres.errors import Diverged, UsageError
from fastres.model.compute import stage_flop
from fastres.schedule_loading import load_schedule, override
from fastres.schedule_types import Schedule
from fastres.schedules import BEYOND, SYSTEMS, small_world
from fastres.schedules.small import NETS
from fastres.search.trials import library
from fastres.study import launch, small
from fastres.study.estimate import as_text, estimate
from fastres.study.jobs import Job, plan
from fastres.study.small import fault_of
from fastres.study.task import Outcome
from fastres.study.tune import Rates, circumstances
from fastres.study.work import Work, do_all

MOST_AT_A_TIME = 4  # runs on a CPU: each takes a GB


@dataclass
class Done:
    """What training left: run folders to report on, notes, the exit code; or a dry run's estimate."""

    folders: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    code: int = 0
    estimate: dict = field(default_factory=dict)
    text: str = ""


def train_all(args: argparse.Namespace) -> Done:
    """Prepare, plan and train: everything between the command line and run folders to report on."""
    if args.tune:
        library()  # what is missing is said before anything is packed
    names = args.schedules.split(",") if args.schedules else []
    systems = [load_schedule(name) for name in names] or [*SYSTEMS, *BEYOND]
    data, nets = args.data or Path("packed"), _nets(args.weights)
    if args.small_world:
        data = args.data or small.pack(args.out / "world", "study")
        scale = small.SCALE if args.scale is None else args.scale
        systems = [small_world(schedule, scale) for schedule in systems]
        nets = {**NETS, **nets}
    systems = [override(schedule, args.set) for schedule in systems]
    if any(name.partition("=")[0].strip() == "weights" for name in args.set):
        nets = {}  # the same for all, then
    manifest = load_manifest(data)
    jobs = _plan(systems, args, manifest, nets)
    at_a_time, threads = _shares(args)
    options = ["--data", str(data), "--engine", args.engine, "--device", args.device, "--precision", args.precision]
    if args.dry_run:
        result = estimate(jobs, options, manifest, at_a_time, threads, searches=args.tune)
        return Done(estimate=result, text=as_text(result))
    for schedule in {(job.system, job.schedule.weights): job.schedule for job in jobs}.values():
        rehearse(schedule, manifest.num_classes, manifest.side)  # what is wrong is said before the first one trains
    rates = Rates(args.out / "tune", circumstances(options)) if args.tune else Rates(None)
    outcomes = do_all(Work(jobs, options, rates), launch.Child, at_a_time, threads)
    notes = rates.note([schedule.name for schedule in systems])
    if at_a_time > 1:
        notes.append(f"{at_a_time} runs went side by side, {threads or 'all'} CPU thread{'s' * (threads != 1)} each: "
                     "their seconds are not those of a machine to itself")  # fmt: skip
    return _done(outcomes, notes)


def _plan(systems: list[Schedule], args: argparse.Namespace, manifest: Manifest, nets: dict) -> list[Job]:
    flop = {s.name: stage_flop(s.to_dict(), manifest.num_classes, manifest.side) for s in systems}
    return plan(systems, args.seeds, args.out / "runs", flop, manifest.count("train"), nets)


def _shares(args: argparse.Namespace) -> tuple[int, int | None]:
    """Runs at a time, and the threads of each.

    A CPU's small networks gain little from a second thread, but two runs of one thread each are two runs. A GPU takes
    one at a time.
    """
    if choose_device(args.device).type != "cpu":
        return args.jobs or 1, None
    cores = torch.get_num_threads()
    at_a_time = args.jobs or min(cores, MOST_AT_A_TIME)
    return at_a_time, max(1, cores // at_a_time)


def _done(outcomes: list[Outcome], notes: list[str]) -> Done:
    """A run that diverged is a row of the tables; one that failed otherwise is that and the command's exit code.

    The sentence and the exit code of the first, where not one of them left a run.
    """
    said: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.error:
            said.setdefault(outcome.error, []).append(outcome.job.name)
    fates = [f"{'; '.join(names)}: {error}" for error, names in said.items()]
    failed = [outcome.code for outcome in outcomes if outcome.code not in (0, Diverged.exit_code)]
    there = [outcome.job.folder for outcome in outcomes if (outcome.job.folder / "config.json").exists()]
    if not there:
        raise fault_of(outcomes[0].code, [f"no run was trained: {fates[0]}"])
    return Done(folders=there, notes=[*notes, *fates], code=failed[0] if failed else 0)


def _nets(given: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        arch, equals, file = text.partition("=")
        if not equals or not Path(file).is_file():
            raise UsageError(f"--weights {text}: expected ARCH=FILE, such as resnet18=net.pth, and the file")
        found.setdefault(arch, []).append(file)
    return found
