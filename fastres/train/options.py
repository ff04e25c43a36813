"""What a run is asked to do: train's command line as an object, and what of it makes a run that run and no other."""

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path

from fastres.data.described import is_tiny_imagenet
from fastres.data.manifest import Manifest
from fastres.machine.device import Precision
from fastres.machine.errors import UsageError
from fastres.machine.processes.world import World
from fastres.machine.versions import of_code
from fastres.schedules.loading import load_schedule, override
from fastres.schedules.types import Schedule
from fastres.track.run_config import flatten
from fastres.train.saving import interval


@dataclass(frozen=True, kw_only=True)
class Options:
    """A run: what train's options of the same names say (see --help), with the schedule they resolve to.

    UsageError for what `refuse` names.
    """

    schedule: Schedule
    data: Path = Path("packed")
    engine: str = "resident"
    device: str = "auto"
    precision: str = "auto"
    deterministic: bool = False
    run_dir: Path | None = None
    seed: int = 0
    start_from: Path | None = None
    checkpoint_every: int | None = None
    wandb: str | None = None
    project: str = "fastres"
    wandb_artifact: bool = False
    sync_bn: bool = False
    allow_process_change: bool = False
    no_evaluation: bool = False

    def __post_init__(self) -> None:
        refuse(self)

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Options":
        """The run that a parsed command line asks for. UsageError for a schedule or an override that is none."""
        refuse(args)  # before a schedule is read
        schedule = resolve(args.schedule, args.set, args.weights)
        named = {field.name: getattr(args, field.name) for field in fields(cls) if field.name != "schedule"}
        return cls(schedule=schedule, **named)

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.run_dir or Path("runs/live") / f"{self.schedule.name}-s{self.seed}"

    def config(self, manifest: Manifest, precision: Precision, world: World) -> dict:
        """All that decides the run's result, for its config.json."""
        return {
            "schedule": self.schedule.to_dict(),
            "seed": self.seed,
            "engine": self.engine,
            "precision": precision.name,
            "device": precision.device.type,
            "content_digest": manifest.content_digest,
            "processes": world.size,
            "sync_bn": self.sync_bn and world.size > 1,
            **({"deterministic": True} if self.deterministic else {}),
        }

    def facts(self, manifest: Manifest, precision: Precision, world: World) -> dict:
        """All that the processes of a run must have in common, flat, by name: also what decides not its result but
        which way all go together, and what computes."""
        ways = ("start_from", "checkpoint_every", "allow_process_change", "no_evaluation")
        common = {name: getattr(self, name) for name in ways} | {"run_dir": self.folder, "versions": of_code()}
        return flatten({**self.config(manifest, precision, world), **common})

    def on(self, manifest: Manifest) -> "Options":
        """This run on these data: the paper's figures beside it where they are of the same data, else none."""
        if is_tiny_imagenet(manifest):
            return self
        return replace(self, schedule=replace(self.schedule, expected={}))

    def command_line(self, schedule: Path) -> list[str]:
        """train's arguments for this run in a process of its own, its schedule written to the file `schedule`."""
        words = ["--schedule", str(schedule)]
        for field in fields(self):
            value, name = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name == "schedule" or value == field.default:
                continue
            words += [name] if value is True else [name, str(value)]
        return words


def refuse(asked: Options | argparse.Namespace) -> None:
    """UsageError for a model to be sent where nothing is sent, a seed out of range, less than no steps."""
    if asked.wandb_artifact and asked.wandb == "off":
        raise UsageError("--wandb-artifact: with --wandb off there is nowhere to send the model; drop one of the two")
    if not 0 <= asked.seed < 1 << 31:
        raise UsageError(f"--seed {asked.seed}: expected 0 to {(1 << 31) - 1}")
    interval(asked.checkpoint_every)


def resolve(name: str, settings: list[str], weights: str | None) -> Schedule:
    """The schedule that --schedule, --set and --weights mean together."""
    if weights is not None and not weights.strip():
        raise UsageError("--weights: is empty, expected a file or a name; leave the option away for the schedule's own")
    schedule = override(load_schedule(name), settings)
    return override(schedule, [f"weights={weights}"]) if weights else schedule
