"""The staged fine-tune: for stage, for epoch, for batch (paper, sections 3 and 5); then 12-crop evaluation.

    python -m fastres.train --schedule paper
    python -m fastres.train --schedule demo --data packed-small-world --set optimizer.lr=0.01

The same command again resumes an unfinished run and shows the table of a finished one.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from fastres import scoring, views
from fastres.configuration import begun, configuration, open_folder
from fastres.data.engines import ENGINES
from fastres.data.libraries import require
from fastres.data.manifest import load_manifest
from fastres.endings import noted
from fastres.engine.determinism import make_deterministic
from fastres.engine.distributed import open_world
from fastres.engine.precision import CHOICES, choose_precision
from fastres.engine.rehearsal import rehearse
from fastres.engine.signals import StopRequest
from fastres.engine.stage_ends import find_start
from fastres.engine.world import World
from fastres.errors import UsageError, run_command
from fastres.evaluate import score
from fastres.report import as_text
from fastres.run import Run
from fastres.schedule_loading import load_schedule, override
from fastres.schedule_types import Schedule
from fastres.stage_run import StageRun
from fastres.track.console import Progress, say
from fastres.track.wandb import MODES


def train(run: Run, stop: StopRequest) -> dict:
    """Run every stage that is still to do, then evaluate. Returns the summary. Preempted after a signal."""
    for stage_index in range(run.position.stage, len(run.schedule.stages)):
        run.stop_if_asked(stop)
        stage = run.begin_stage(stage_index)
        for epoch in range(run.position.epoch, stage.row.epochs):
            train_epoch(run, stage, epoch, stop)
            validate_epoch(run, stage, epoch, stop)
    return run.finish(stop)


def train_epoch(run: Run, stage: StageRun, epoch: int, stop: StopRequest) -> None:
    """One pass over the training images from wherever the run stands in it."""
    plan, order = stage.plan(epoch), stage.order(epoch)
    first = run.position.step
    label = f"stage {stage.index + 1}/{len(run.schedule.stages)} {stage.row.name} epoch {epoch + 1}/{stage.row.epochs}"
    if first == 0:
        stage.step.begin_epoch()
    stage.training_mode()
    batches = run.world.batches(run.train, order[first * run.schedule.batch_size :], run.schedule.batch_size)
    with Progress(len(order), label, initial=first * run.schedule.batch_size) as progress, stage.epoch_running():
        progress.update(0, **run.last_error)
        for step, batch in enumerate(stage.fed(batches), start=first):
            stage.step(batch, plan, stage.learning_rate.at(epoch * stage.steps_per_epoch + step))
            stage.average.update()
            stage.rate.step(batch.step_images)
            run.step_done(stage, epoch, step + 1, batch.step_images, progress)
            if stop.agreed():
                run.preempt(stage, epoch, step + 1)
        run.check_finite(stage, epoch)  # reads the loss, so the clock sees the work done


def validate_epoch(run: Run, stage: StageRun, epoch: int, stop: StopRequest) -> None:
    """Centre-crop validation, the default test method of fb.resnet.torch; then the rate rule and a checkpoint."""
    started = time.perf_counter()
    if stop.agreed():
        run.preempt(stage, epoch, stage.steps_per_epoch)
    plan = views.TestPlan(geometry=stage.geometry, settings=run.schedule.views, dtype=run.precision.dtype)
    network = stage.average.network
    scores = score(network, run.val, plan, run.precision, label="validation", world=run.world,
                   compile=run.compiled)  # fmt: skip
    labels = run.val.labels.cpu()
    errors = scoring.top_errors(scores[:, 0].double(), labels)
    loss = torch.nn.functional.cross_entropy(scores[:, 0], labels).item()
    run.epoch_done(stage, epoch, errors, loss, time.perf_counter() - started)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m fastres.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--schedule", required=True, metavar="NAME|FILE.py", help="one of fastres/schedules, or a file")
    p.add_argument("--data", type=Path, default=Path("packed"), metavar="DIR", help="packed folder (default packed)")
    p.add_argument("--weights", metavar="FILE|NAME",
                   help="pretrained weights: .safetensors, .pth or .t7, IMAGENET1K_V1, or timm:NAME.TAG")  # fmt: skip
    p.add_argument("--engine", choices=tuple(ENGINES), default="resident", help="where pixels live while training")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--precision", choices=CHOICES, default="auto", help="auto: bf16 where the hardware has it")
    p.add_argument("--deterministic", action="store_true", help="the same bits again on a GPU too; slower there")
    p.add_argument("--run-dir", type=Path, metavar="DIR", help="default runs/live/<schedule>-s<seed>")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--start-from", type=Path, metavar="RUN_DIR", help="take over the first stages shared with this run")
    p.add_argument("--set", action="extend", nargs="+", default=[], metavar="A.B=C",
                   help="override, e.g. stages.0.epochs=1")  # fmt: skip
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
    p.add_argument("--no-evaluation", action="store_true",
                   help="end without the twelve crops and pictures, as a search's trials do")  # fmt: skip
    p.add_argument("--dry-run", action="store_true", help="show schedule, expected time and memory only")
    p.add_argument("--json", action="store_true", help="print the summary (or the dry run) as one JSON object")
    return p


def resolve(args: argparse.Namespace) -> Schedule:
    """The schedule a command line means."""
    if not 0 <= args.seed < 1 << 31:
        raise UsageError(f"--seed {args.seed}: expected 0 to {(1 << 31) - 1}")
    schedule = override(load_schedule(args.schedule), args.set)
    return override(schedule, [f"weights={args.weights}"]) if args.weights else schedule


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    with open_world(args.device) as world:
        return run_in(world, args)


def run_in(world: World, args: argparse.Namespace) -> int:
    """The command in one process of `world`; the first one prints."""
    if args.wandb_artifact and args.wandb == "off":
        raise UsageError("--wandb-artifact: with --wandb off there is nowhere to send the model; drop one of the two")
    schedule = resolve(args)
    require(args.engine)
    precision = choose_precision(args.precision, world.device)
    if args.deterministic:
        make_deterministic()
    manifest = load_manifest(args.data)
    rehearse(schedule, manifest.num_classes, manifest.side)  # what is wrong in any stage is said before the first
    if args.dry_run:
        from fastres.dry_run import dry_run

        return world.from_first(lambda: dry_run(schedule, manifest, precision, as_json=args.json))

    config = configuration(args, schedule, manifest, precision, world)
    start = find_start(args.start_from, config) if args.start_from and not begun(args, schedule) else None
    with open_folder(args, schedule, config, world) as folder:
        if folder.finished:
            summary = folder.summary()
            say(f"{folder.path}: this run is finished; another --run-dir or --seed starts a new one")
        else:
            with (
                world.stop_request() as stop,
                noted(folder, schedule, args.seed, world.device),
                Run(args, schedule, manifest, precision, folder, world, start) as run,
            ):
                summary = train(run, stop)
    if world.first:
        print(json.dumps(summary) if args.json else as_text(summary, schedule, folder.path))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
