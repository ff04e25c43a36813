"""One run: its folder, data, network and position, and what happens at the borders of step, epoch and stage.

train.py is the procedure; this is everything it would otherwise have to carry along.
"""

import math
import time

import torch

from fastres import report
from fastres.data.engines import open_split
from fastres.data.manifest import Manifest
from fastres.endings import diverged, lower_rate
from fastres.engine.checkpoint import Position
from fastres.engine.operate import Theatre, operate
from fastres.engine.precision import Precision
from fastres.engine.saving import interval
from fastres.engine.signals import StopRequest
from fastres.engine.stage_ends import Start
from fastres.engine.world import World
from fastres.errors import Diverged, MachineError, Preempted
from fastres.evaluate import evaluate
from fastres.geometry import Geometry
from fastres.publishing import keep_stage_end, publish
from fastres.resuming import take_up
from fastres.schedule_types import Schedule
from fastres.stage_run import StageRun
from fastres.track.clock import Clock
from fastres.track.console import Progress, say
from fastres.track.run_dir import RunDir
from fastres.track.wandb import CLOSE_TIMEOUT, UPLOAD_TIMEOUT, open_wandb

# Steps between two looks at the running loss: each look waits for the device.
LOOK_EVERY = 50


class Run:
    """State and bookkeeping of one run in an opened folder."""

    def __init__(
        self, args, schedule: Schedule, manifest: Manifest, precision: Precision, folder: RunDir, world: World,
        start: Start | None = None,
    ) -> None:  # fmt: skip
        """`start`: another run whose first stages are taken over, if this one is new."""
        self.schedule, self.seed, self.manifest, self.precision = schedule, args.seed, manifest, precision
        self.folder, self.data_folder, self.world, self.sync_bn = folder, args.data, world, args.sync_bn
        self.writer, self.interval = world.writer(folder.checkpoints), interval(args.checkpoint_every)
        self.compiled = schedule.step == "compiled"  # evaluation too, then
        self.evaluates = not args.no_evaluation
        self.clock = Clock()
        self.started = time.perf_counter()
        self.train, self.val = (
            open_split(args.engine, args.data, manifest, split, precision.device) for split in ("train", "val")
        )
        self.theatre = Theatre(schedule, args.seed, self.train, manifest.num_classes, manifest.side, precision)
        self.position, self.images_seen = Position(), 0
        self.last_error: dict[str, float] = {}  # for the progress bar
        world.agree("packed data", manifest.content_digest)
        network, self._resumed = take_up(self, start)
        self.network = network.to(self.precision.device, memory_format=torch.channels_last)
        device = report.device_name(self.precision.device)
        self.log("start", position=self.position, device=device, processes=world.size, commit=report.commit())
        # last, so that nothing that can be refused above leaves a mirror behind
        name = f"{schedule.name}-s{args.seed}"
        tags = [schedule.name, schedule.arch, args.engine, precision.name, precision.device.type]
        mode = args.wandb if world.first else "off"
        self.wandb = open_wandb(mode, folder, args.project, name, folder.config, tags=tags)
        self.wandb_artifact = args.wandb_artifact

    def log(self, event: str, position: Position | None = None, **fields) -> None:
        """A record in log.jsonl that knows where the run stands after it."""
        at = position or self.position
        self.folder.log.write(event, at=[at.stage, at.epoch, at.step], **fields)

    def begin_stage(self, index: int) -> StageRun:
        """Surgery, then a fresh optimiser and rate, or those of the checkpoint inside this stage."""
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            before = self.network.conv1.weight.detach().float().cpu().numpy()
            operate(self.network, index, self.theatre)
            after = self.network.conv1.weight.detach().float().cpu().numpy()
            if before.shape != after.shape:
                self.world.from_first(lambda: report.draw_stem(before, after, self.folder.pictures))
        self.world.meet()
        self.world.same(self.network)
        stage = StageRun(self, index)
        if resumed is not None:
            stage.step.load_state_dict(resumed["step"])
            stage.learning_rate.load_state_dict(resumed["learning_rate"])
            stage.average.load_state_dict(resumed["average"])
            stage.epoch_train_s, stage.epoch_wait_s = resumed["epoch_train_s"], resumed["epoch_wait_s"]
        row = stage.row
        self.log("stage", stage=index, name=row.name, epochs=row.epochs, crop=stage.geometry.crop, bn=row.bn,
                 learning=stage.learning)  # fmt: skip
        say(f"stage {index + 1}/{len(self.schedule.stages)} {row.name}: {row.epochs} epochs, crop "
            f"{stage.geometry.crop}, learns {stage.learning} tensors ({', '.join(row.train)})")  # fmt: skip
        return stage

    def stop_if_asked(self, stop: StopRequest) -> None:
        """Preempted between two stages, where the last epoch's checkpoint has everything."""
        if stop.agreed():
            self._check_written()
            raise Preempted("stopped by a signal; the same command goes on from the last checkpoint")

    def step_done(self, stage: StageRun, epoch: int, step: int, images: int, progress: Progress) -> None:
        """Count, every LOOK_EVERY steps look at the loss, and save where the interval says so."""
        self.images_seen += images
        if step % LOOK_EVERY == 0 or step == 1:
            loss = self.check_finite(stage, epoch)
            self.position = Position(stage.index, epoch, step)
            lr, speed = stage.learning_rate.at(epoch * stage.steps_per_epoch + step - 1), stage.gauges.read()
            self.log("step", stage=stage.index, epoch=epoch + 1, step=step, images_seen=self.images_seen, lr=lr,
                     train_loss=loss, **speed)  # fmt: skip
            self._mirror_point(stage, loss, lr, speed)
            progress.update(images, loss=loss, **self.last_error)
        else:
            progress.update(images)
        if self.interval.due(step) and self.writer.ready():
            self.check_finite(stage, epoch)
            self._save(Position(stage.index, epoch, step), stage)

    def _mirror_point(self, stage: StageRun, loss: float, lr: float, speed: dict[str, float]) -> None:
        """A point on the axis of images."""
        self.wandb.log({"train/loss": loss, "lr": lr, "stage/index": stage.index, "images_seen": self.images_seen,
                        **{f"speed/{name}": value for name, value in speed.items()}})  # fmt: skip

    def check_finite(self, stage: StageRun, epoch: int) -> float:
        """The epoch's mean loss so far; Diverged if it is not finite, with what is needed to see why."""
        loss = stage.step.mean_loss()
        if not math.isfinite(loss):
            raise diverged(self, stage, epoch, loss)
        return loss

    def preempt(self, stage: StageRun, epoch: int, step: int) -> None:
        """Save and stop: the same command goes on with the next step."""
        self.check_finite(stage, epoch)
        self._save(Position(stage.index, epoch, step), stage)
        self._check_written()
        raise Preempted(f"stopped by a signal in stage {stage.row.name} epoch {epoch + 1} after step {step}; the same "
                        "command resumes there")  # fmt: skip

    def _check_written(self) -> None:
        """Wait for the last checkpoint; MachineError where it could not be written."""
        fault = self.world.from_first(self.writer.wait)
        if fault is not None:
            raise MachineError(f"stopped by a signal, and what was trained since the last checkpoint is lost: {fault}")

    def epoch_done(self, stage: StageRun, epoch: int, errors: dict, val_loss: float, val_s: float) -> None:
        """Log the epoch, tell the rate, save. Diverged where the validation loss is not finite: the last update, which
        no training loss has seen, may have been one too many."""
        if not math.isfinite(val_loss):
            raise Diverged(
                f"the validation loss is {val_loss} in stage {stage.row.name} epoch {epoch + 1}, expected a finite "
                f"number; try a lower rate in another --run-dir: {lower_rate(self.schedule, stage.index)}"
            )
        lr, loss = stage.learning_rate.at((epoch + 1) * stage.steps_per_epoch - 1), stage.step.mean_loss()
        stage.learning_rate.after_epoch(errors["top1"])
        total = sum(row.epochs for row in self.schedule.stages[: stage.index]) + epoch + 1
        self.last_error = {"err": errors["top1"]}
        speed = {"img_per_s": len(self.train) / stage.epoch_train_s, **stage.gauges.read()}  # steady where it can be
        last = epoch + 1 == stage.row.epochs
        position = Position(stage.index + 1) if last else Position(stage.index, epoch + 1)
        self.log("epoch", position, stage=stage.index, stage_name=stage.row.name, epoch=epoch + 1, epoch_total=total,
                 lr=lr, train_loss=loss, val_top1_err=errors["top1"], val_top5_err=errors["top5"], val_loss=val_loss,
                 train_s=stage.epoch_train_s, wait_s=stage.epoch_wait_s, val_s=val_s, images_seen=self.images_seen,
                 **speed)  # fmt: skip
        self._mirror_point(stage, loss, lr, speed)
        self.wandb.log({"val/top1_err": errors["top1"], "val/top5_err": errors["top5"], "val/loss": val_loss,
                        "stage/index": stage.index, "epoch": total})  # fmt: skip
        say(f"  epoch {epoch + 1:2d}/{stage.row.epochs}  lr {lr:<8.4g} train loss {loss:.3f}  val top-1 err "
            f"{errors['top1']:5.2f} %  top-5 {errors['top5']:5.2f} %  {speed['img_per_s']:,.0f} img/s")  # fmt: skip
        stage.epoch_train_s = stage.epoch_wait_s = 0.0
        if last:
            stage.average.hand_over()
            self.world.from_first(lambda: keep_stage_end(self, stage))
        self._save(position, None if last else stage, errors["top1"])
        self.world.meet()  # the first process may have waited for its disk

    def _save(self, position: Position, stage: StageRun | None, error: float | None = None) -> None:
        """A checkpoint; with the stage's optimiser where the stage goes on, without at its border."""
        judged = self.network if stage is None else stage.average.network
        state: dict = {"network": judged.state_dict(), "images_seen": self.images_seen}
        if stage is not None:
            state["stage"] = {
                "step": stage.step.state_dict(),
                "learning_rate": stage.learning_rate.state_dict(),
                "average": stage.average.state_dict(),
                "epoch_train_s": stage.train_s,
                "epoch_wait_s": stage.epoch_wait_s,
            }
        with self.clock("checkpoint"):
            self.writer.save(position, state, error)
        self.interval.saved()
        self.position = position

    def finish(self, stop: StopRequest) -> dict:
        """Twelve-crop evaluation where that is wanted, final weights, pictures, summary."""
        geometry, errors = Geometry(self.manifest.side, self.schedule.stages[-1].upscale), {}
        with self.clock("evaluation"):
            if self.evaluates:
                errors, _ = evaluate(
                    self.network,
                    self.val,
                    geometry,
                    self.schedule.views,
                    self.precision,
                    stop.check,
                    self.world,
                    compile=self.compiled,
                )
        return self.world.from_first(lambda: publish(self, errors, geometry.upscale))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind, error, _) -> None:
        self.writer.close()
        code = 0 if error is None else getattr(error, "exit_code", 1)
        hint = self.wandb.close(UPLOAD_TIMEOUT if self.wandb_artifact else CLOSE_TIMEOUT, exit_code=code)
        if hint:
            say(f"W&B: this run was mirrored offline; upload it with: {hint}")
