"""What makes a run that run and no other: its resolved configuration, and the folder that holds it."""

from pathlib import Path

from fastres.data.manifest import Manifest
from fastres.engine.precision import Precision
from fastres.schedule_types import Schedule
from fastres.track.run_dir import RunDir


def configuration(args, schedule: Schedule, manifest: Manifest, precision: Precision) -> dict:
    """All that decides a run's result. `args`: train.py's command line."""
    return {
        "schedule": schedule.to_dict(), "seed": args.seed, "engine": args.engine, "precision": precision.name,
        "device": precision.device.type, "content_digest": manifest.content_digest,
    }  # fmt: skip


def open_folder(args, schedule: Schedule, config: dict) -> RunDir:
    """Open or create the run's folder, locked. `args`: train.py's command line."""
    return RunDir.open(args.run_dir or Path("runs/live") / f"{schedule.name}-s{args.seed}", config)
