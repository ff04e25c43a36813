"""What makes a run that run and no other: its resolved configuration, and the folder that holds it."""

from pathlib import Path

from fastres.data.manifest import Manifest
from fastres.engine.checkpoint import checkpoints_in
from fastres.engine.precision import Precision
from fastres.engine.world import World
from fastres.schedule_types import Schedule
from fastres.track.console import say
from fastres.track.run_dir import FollowedRunDir, RunDir


def configuration(args, schedule: Schedule, manifest: Manifest, precision: Precision, world: World) -> dict:
    """All that decides a run's result. `args`: train.py's command line."""
    return {
        "schedule": schedule.to_dict(), "seed": args.seed, "engine": args.engine, "precision": precision.name,
        "device": precision.device.type, "content_digest": manifest.content_digest,
        "processes": world.size, "sync_bn": args.sync_bn and world.size > 1,
        **({"deterministic": True} if args.deterministic else {}),
    }  # fmt: skip


def folder_of(args, schedule: Schedule) -> Path:
    """Where the run is kept. `args`: train.py's command line."""
    return args.run_dir or Path("runs/live") / f"{schedule.name}-s{args.seed}"


def begun(args, schedule: Schedule) -> bool:
    """Whether the run has a checkpoint of its own, so that what it started from is needed no more."""
    folder = folder_of(args, schedule) / "checkpoints"
    return folder.is_dir() and bool(checkpoints_in(folder))


def open_folder(args, schedule: Schedule, config: dict, world: World) -> RunDir | FollowedRunDir:
    """Open or create the run's folder; the first process locks it, the others read. `args`: train.py's command line."""
    path = folder_of(args, schedule)
    opened: list[RunDir] = []
    may_change = ["processes"] if args.allow_process_change else []
    world.from_first(lambda: opened.append(RunDir.open(path, config, may_change)))
    for folder in opened:
        if folder.before and not folder.finished:
            say(f"{path}: begun on {folder.before['processes']} processes, going on with {world.size}: the rest is not "
                "bit-exact")  # fmt: skip
    return opened[0] if opened else FollowedRunDir(path, config)
