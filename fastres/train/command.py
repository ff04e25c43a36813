"""The staged fine-tune: for stage, for epoch, for batch (paper, sections 3 and 5); then 12-crop evaluation.

    python -m fastres.train --schedule paper
    python -m fastres.train --schedule demo --data packed-small-world --set optimizer.lr=0.01

The same command again resumes an unfinished run and shows the table of a finished one.
"""

import argparse
import time
from pathlib import Path

from fastres.data.engines import ENGINES, check_memory, open_split
from fastres.data.libraries import require
from fastres.data.manifest import Manifest, load_manifest
from fastres.machine import strict_json, waiting
from fastres.machine.arguments import place
from fastres.machine.console import say, show_kept
from fastres.machine.device import CHOICES, Precision, choose_precision, make_deterministic
from fastres.machine.facts import device_name
from fastres.machine.kept_code import kept_beside
from fastres.machine.processes.distributed import open_world
from fastres.machine.processes.world import World
from fastres.stage.rehearsal import rehearse
from fastres.stage.setting import Setting
from fastres.stage.stage_step import check_step, step_kind
from fastres.track.mirror import MODES
from fastres.track.run_dir import RunDir
from fastres.train.dry_run import dry_run, show
from fastres.train.endings import noted
from fastres.train.loop import train
from fastres.train.options import Options
from fastres.train.run import Run
from fastres.train.stage_ends import Start, find_start
from fastres.train.start import begun, open_folder, take_up
from fastres.train.summary import as_text, of_finished


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", required=True, metavar="NAME|FILE.py", help="one of fastres/schedules, or a file")
    p.add_argument("--data", type=place, default=Path("packed"), metavar="DIR", help="packed folder (default packed)")
    p.add_argument(
        "--weights",
        metavar="FILE|NAME",
        help="pretrained weights: .safetensors, .pth or .t7, IMAGENET1K_V1, or timm:NAME.TAG",
    )
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident", help="where pixels live while training")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto", help="auto: bf16 where the hardware has it")
    p.add_argument("--deterministic", action="store_true", help="the same bits again on a GPU too; slower there")
    p.add_argument("--run-dir", type=place, metavar="DIR", help="default runs/live/<schedule>-s<seed>")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--start-from", type=place, metavar="RUN_DIR", help="take over first stages shared with this run")
    p.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="A.B=C", help="override, e.g. stages.0.epochs=1"
    )
    p.add_argument(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="checkpoints inside epochs too; 0: at their ends only (default: whenever a minute has passed)",
    )
    p.add_argument("--wandb", choices=MODES, help="default: online where a login exists, else offline")
    p.add_argument("--project", default="fastres", help="W&B project")
    p.add_argument("--wandb-artifact", action="store_true", help="W&B gets the final model too, as an artifact")
    p.add_argument("--sync-bn", action="store_true", help="several processes: BatchNorm over the global batch")
    p.add_argument(
        "--allow-process-change", action="store_true", help="resume on another number of processes: not bit-exact"
    )
    p.add_argument(
        "--no-evaluation",
        action="store_true",
        help="end without the twelve crops and pictures, as a search's trials do",
    )
    p.add_argument("--dry-run", action="store_true", help="show schedule, expected time and memory only")
    p.add_argument("--json", action="store_true", help="print the summary (or the dry run) as one JSON object")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with open_world(args.device) as world:
        options = Options.of(args)
        if args.dry_run:
            manifest, precision = prepare(options, world, dry_run=True)
            schedule = options.on(manifest).schedule
            return world.from_first(lambda: show(dry_run(schedule, manifest, precision), as_json=args.json))
        summary = fit(options, world)
        if world.first:
            text = strict_json.dumps(summary) if args.json else as_text(summary, options.folder)
            show_kept(text, options.folder / "summary.json")
    return 0


def prepare(options: Options, world: World, dry_run: bool = False) -> tuple[Manifest, Precision]:
    """The data and the number format; what is wrong in any stage, or not the same in all processes, is said before the
    first one trains."""
    require(options.engine)
    precision = choose_precision(options.precision, world.device)
    several = options.sync_bn and world.size > 1
    asked = options.schedule
    check_step(
        step_kind(asked.step), asked.optimizer.impl, precision, options.engine, asked.views.impl, sync_bn=several
    )
    if options.deterministic:
        make_deterministic()
    manifest = load_manifest(options.data)
    world.agree(lambda: {"dry_run": dry_run, **options.facts(manifest, precision, world)})
    rehearse(
        options.schedule,
        manifest.num_classes,
        manifest.side,
        manifest.wnids,
        images=manifest.count("train"),
        processes=world.size,
        sync_bn=options.sync_bn,
    )
    check_memory(options.engine, options.data, manifest, ("train", "val"), precision.device)
    return manifest, precision


def fit(options: Options, world: World) -> dict:
    """Train the run, or the rest of it, in one process of `world`; returns its summary, a finished run's as it is."""
    manifest, precision = prepare(options, world)
    options = options.on(manifest)
    config = options.config(manifest, precision, world)
    start = find_start(options.start_from, config) if options.start_from and not begun(options) else None
    with open_folder(options, config, world) as folder:
        if folder.finished:
            say(f"{folder.path}: this run is finished; another --run-dir or --seed starts a new one")
            return of_finished(folder.path, folder.summary())
        say(f"device: {device_name(world.device)}, {precision.name}")
        if world.device.type == "cpu" and (threads := waiting.said()):
            say(threads)
        compiles = world.device.type == "cuda" or options.schedule.step == "compiled"
        with (
            kept_beside(options.data, compiles),
            world.stop_request() as stop,
            noted(folder, options.schedule, options.seed, world.device),
            _open_run(options, manifest, precision, folder, world, start) as run,
        ):
            return train(run, stop)


def _open_run(
    options: Options, manifest: Manifest, precision: Precision, folder: RunDir, world: World, start: Start | None
) -> Run:
    """Open the data, and go on where the folder's run stands."""
    started = time.perf_counter()
    train_split, val_split = (
        open_split(options.engine, options.data, manifest, split, precision.device) for split in ("train", "val")
    )
    setting = Setting(
        schedule=options.schedule,
        seed=options.seed,
        packed=options.data,
        manifest=manifest,
        train=train_split,
        val=val_split,
        precision=precision,
        world=world,
        sync_bn=options.sync_bn,
    )
    return Run(options, setting, folder, take_up(setting, folder, start), started)
