"""From the study's command line to trained runs: data, nets, schedules, jobs, their outcomes."""

import argparse
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastres.data.manifest import Manifest, load_manifest
from fastres.engine.rehearsal import rehearse
from fastres.errors import Diverged, UsageError
from fastres.model.compute import stage_flop
from fastres.schedule_file import write_schedule
from fastres.schedule_loading import load_schedule, override
from fastres.schedule_types import Schedule
from fastres.schedules import BEYOND, SYSTEMS
from fastres.study import small, work
from fastres.study.estimate import as_text, estimate
from fastres.study.jobs import Job, plan
from fastres.study.tune import FACTORS, tuned


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
    names = args.schedules.split(",") if args.schedules else []
    systems = [load_schedule(name) for name in names] or [*SYSTEMS, *BEYOND]
    machine = ["--device", args.device, "--precision", args.precision]
    data, weights, notes = args.data or Path("packed"), _weights(args.weights), []
    not_counted: tuple[str, ...] = ()
    if args.small_world:
        data = args.data or small.pack(args.out / "world", "study")
        if small.needs_50(systems) and "resnet50" not in weights:
            weights["resnet50"] = "not-yet" if args.dry_run else str(_net_50(args, machine))
            notes.append(small.note_50(args.scale))
            epochs = small.pretraining_50(args.scale).epochs
            not_counted = (f"pretraining the 50-layer net once, {epochs} epochs of the source world's 16,000 images",)
        systems = small.counterparts(systems, args.scale, weights)
    else:
        systems = [replace(s, weights=weights.get(s.arch, s.weights)) if s.weights else s for s in systems]
    systems = [override(schedule, args.set) for schedule in systems]
    options, manifest = ["--data", str(data), "--engine", args.engine, *machine], load_manifest(data)
    if args.dry_run:
        return _dry_run(_plan(systems, args, manifest), options, len(FACTORS) if args.tune else 0, not_counted)
    for schedule in systems:  # what is wrong with any of them is said before the first one trains
        rehearse(schedule, manifest.num_classes, manifest.side)
    if args.tune:
        found = [tuned(s, args.out / "tune" / s.name, [*options, "--seed", "0"]) for s in systems]
        systems, notes = [schedule for schedule, _ in found], [*notes, *(note for _, note in found)]
    jobs = _plan(systems, args, manifest)
    return _done(work.do_all(jobs, options, work.subprocess_launch), notes)


def _plan(systems: list[Schedule], args: argparse.Namespace, manifest: Manifest) -> list[Job]:
    flop = {s.name: stage_flop(s.to_dict(), manifest.num_classes, manifest.side) for s in systems}
    jobs = plan(systems, args.seeds, args.out / "runs", flop, manifest.count("train"))
    (args.out / "schedules").mkdir(parents=True, exist_ok=True)
    for job in jobs:
        write_schedule(work.schedule_file(job), job.schedule, f"{job.schedule.name} of the study in {args.out}.")
    return jobs


def _dry_run(jobs: list[Job], options: list[str], trials: int, not_counted: tuple[str, ...]) -> Done:
    result = estimate(jobs, options, trials, not_counted)
    return Done(estimate=result, text=as_text(result))


def _done(outcomes: list[work.Outcome], notes: list[str]) -> Done:
    """A run that diverged is a row of the tables; one that failed otherwise is that and the command's exit code."""
    fates = [f"{outcome.job.name}: {outcome.error}" for outcome in outcomes if outcome.error]
    failed = [outcome.code for outcome in outcomes if outcome.code not in (0, Diverged.exit_code)]
    there = [outcome.job.folder for outcome in outcomes if (outcome.job.folder / "config.json").exists()]
    return Done(folders=there, notes=[*notes, *fates], code=failed[0] if failed else 0)


def _weights(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        arch, equals, file = text.partition("=")
        if not equals or not Path(file).is_file():
            raise UsageError(f"--weights {text}: expected ARCH=FILE, such as resnet18=net.pth, and the file")
        found[arch] = file
    return found


def _net_50(args: argparse.Namespace, machine: list[str]) -> Path:
    return small.net_50(args.cache or args.out / "nets", args.scale, machine, work.subprocess_launch)
