"""From the study's command line to trained runs: data, nets, schedules, jobs, their outcomes."""

import argparse
import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from fastres.data.manifest import Manifest, load_manifest
from fastres.machine.device import choose_device
from fastres.machine.errors import Diverged, UsageError
from fastres.model.flop import stage_flop
from fastres.model.network import BLOCKS
from fastres.schedules import BEYOND, PLAIN, SYSTEMS, TORCH7, quarter, small_world
from fastres.schedules.loading import load_schedule, override
from fastres.schedules.small import NETS
from fastres.schedules.types import Schedule
from fastres.stage.rehearsal import rehearse
from fastres.study.folder import claim_folder, held
from fastres.study.jobs import Job, plan
from fastres.study.search.trials import library
from fastres.study.search.tune import Rates, circumstances
from fastres.study.training import launch, world
from fastres.study.training.estimate import as_text, estimate, from_nothing
from fastres.study.training.pretrain import net_files, pack_halves, pretrain, refuse_other_epochs
from fastres.study.training.task import Outcome
from fastres.study.training.work import Work, do_all
from fastres.study.training.world import fault_of
from fastres.train.options import Options

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
    chosen = [load_schedule(name) for name in names] or _all(args)
    made = partial(Options, engine=args.engine, device=args.device, precision=args.precision)
    if args.small_world or args.quarter or not args.dry_run:
        claim_folder(args.out)
    ground = _ground(args, chosen, made)
    data, systems, nets = ground.data, ground.systems, {**ground.nets, **_nets(args.weights)}
    systems = [override(schedule, args.set) for schedule in systems]
    if any(name.partition("=")[0].strip() == "weights" for name in args.set):
        nets = {}  # the same for all, then
    manifest = load_manifest(data)
    jobs = _plan(systems, args, manifest, nets)
    at_a_time, threads = _shares(args)
    options = partial(made, data=data)
    first = ground.to_pretrain(jobs).values()
    for run in first:
        refuse_other_epochs(args.out, run.schedule)
    if args.dry_run:
        result = estimate(jobs, options, manifest, at_a_time, threads, searches=args.tune, first=list(first))
        return Done(estimate=result, text=as_text(result))
    for schedule in {(job.system, job.schedule.weights): job.schedule for job in jobs}.values():
        # what is wrong is said before anything trains
        known = ground.as_far_as_known(schedule)
        rehearse(known, manifest.num_classes, manifest.side, manifest.wnids, images=manifest.count("train"))
    with held(args.out):
        notes = ground.pretrain(jobs)
        rates = Rates(args.out / "tune", circumstances(options(schedule=systems[0]))) if args.tune else Rates(None)
        outcomes = do_all(Work(jobs, options, rates), launch.Child, at_a_time, threads)
    notes += rates.note([schedule.name for schedule in systems])
    if at_a_time > 1:
        notes.append(
            f"{at_a_time} runs went side by side, {threads or 'all'} CPU thread{'s' * (threads != 1)} each: "
            "their seconds are not those of a machine to itself"
        )
    return _done(outcomes, notes)


def _all(args: argparse.Namespace) -> list[Schedule]:
    """Every system that this study can train, in the tables' order."""
    if args.small_world:  # it has no net without shortcuts, and would have steps of 4 images for Torch7's
        chosen = (*SYSTEMS, *BEYOND)
    else:
        chosen = (*SYSTEMS, *TORCH7, *BEYOND, *(PLAIN if args.quarter else ()))
    known = not (args.small_world or args.quarter)  # their nets know other classes
    return [schedule for schedule in chosen if known or not schedule.knows_classes]


@dataclass(frozen=True)
class Ground:
    """What a study stands on: packed data, the systems' schedules on it, pretrained nets by architecture.

    pretraining  runs that make nets which are not there yet, by architecture, on the study's other half of the data
    scale        of the epochs of such nets
    """

    data: Path
    systems: list[Schedule]
    nets: dict[str, list[str]]
    out: Path
    pretraining: Callable[..., Options] | None = None
    scale: float = 1.0

    def to_pretrain(self, jobs: list[Job]) -> dict[str, Options]:
        """Runs that the jobs need first, by architecture."""
        if self.pretraining is None:
            return {}
        used = {job.schedule.weights for job in jobs}
        needed = [arch for arch, files in self.nets.items() if used.intersection(files)]
        return {arch: self.pretraining(schedule=quarter.pretraining(arch, self.scale)) for arch in needed}

    def pretrain(self, jobs: list[Job]) -> list[str]:
        """Make the nets that the jobs need; a sentence on each."""
        runs = self.to_pretrain(jobs).values()
        return [pretrain(self.out, run.schedule, self.pretraining, launch.Child) for run in runs]

    def as_far_as_known(self, schedule: Schedule) -> Schedule:
        """`schedule`, from nothing where its net is still to be pretrained. UsageError where that will not fit it."""
        if self.pretraining is None or schedule.weights not in self.nets.get(schedule.arch, []):
            return schedule
        width = quarter.PRETRAINING[schedule.arch].width
        if schedule.width != width:
            raise UsageError(
                f"schedule {schedule.name}: has width {schedule.width}, expected the {width} of the net that is "
                "pretrained for it; leave --set width away"
            )
        return schedule if Path(schedule.weights).exists() else from_nothing(schedule)


def _ground(args: argparse.Namespace, chosen: list[Schedule], made: Callable[..., Options]) -> Ground:
    """Pack what the study needs, and find its systems' counterparts there."""
    if args.small_world:
        data = args.data or world.pack(args.out / "world", "the small world's study", "--small-world", "study")
        scale = world.SCALE if args.scale is None else args.scale
        return Ground(data, [small_world(schedule, scale) for schedule in chosen], dict(NETS), args.out)
    if args.quarter:
        source, task = pack_halves(args.out, args.source)
        pretrained = dict.fromkeys(schedule.arch for schedule in chosen if schedule.weights is not None)
        files = net_files(args.out, pretrained)
        scale = 1.0 if args.scale is None else args.scale
        systems = [quarter.quarter(schedule, files, scale) for schedule in chosen]
        nets = {arch: [file] for arch, file in files.items()}
        net_scale = scale if args.net_scale is None else args.net_scale
        return Ground(task, systems, nets, args.out, partial(made, data=source), net_scale)
    return Ground(args.data or Path("packed"), chosen, {}, args.out)


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
        if arch not in BLOCKS:
            nearest = difflib.get_close_matches(arch, BLOCKS, n=1)
            meant = f"did you mean {nearest[0]}? " if nearest else ""
            raise UsageError(f"--weights {text}: no architecture {arch!r}, {meant}expected one of {', '.join(BLOCKS)}")
        found.setdefault(arch, []).append(file)
    return found
