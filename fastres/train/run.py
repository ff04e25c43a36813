"""One run: its folder, network and position, and what happens at the borders of step, epoch and stage.

loop.py is the procedure; this is everything it would otherwise have to carry along.
"""

import math

import torch

from fastres.machine.console import Progress, say
from fastres.machine.errors import MachineError, Preempted
from fastres.machine.facts import commit, device_name
from fastres.machine.processes.signals import StopRequest
from fastres.stage.operate import operate
from fastres.stage.setting import Setting
from fastres.stage.stage_run import StageRun
from fastres.stage.stage_step import step_kind
from fastres.track import pictures
from fastres.track.clock import Clock
from fastres.track.metrics import EPOCHS, IMAGES, point
from fastres.track.mirror import CLOSE_TIMEOUT, UPLOAD_TIMEOUT, open_wandb
from fastres.track.run_dir import RunDir
from fastres.track.time_left import after_epochs
from fastres.train.belongings import FirstSaved, keep_epochs, whereabouts
from fastres.train.checkpoint import Position
from fastres.train.endings import check_validation, diverged
from fastres.train.epochs import epoch_line, epoch_record
from fastres.train.options import Options
from fastres.train.publishing import keep_stage_end, metadata_of, mirror, publish
from fastres.train.saving import interval, writer_for
from fastres.train.start import TakenUp

# Steps between two looks at the running loss: each look waits for the device.
LOOK_EVERY = 50


class Run:
    """State and bookkeeping of one run in an opened folder."""

    def __init__(self, options: Options, setting: Setting, folder: RunDir, taken: TakenUp, started: float) -> None:
        """`taken`: where the run goes on, as take_up found it; `started`: by time.perf_counter."""
        self.setting, self.folder, self.started = setting, folder, started
        self.compiled = setting.schedule.step == "compiled"  # evaluation too, then
        self.forms = step_kind(setting.schedule.step).forms
        self.evaluates = not options.no_evaluation
        self.clock = Clock()
        self.position, self.images_seen, self._resumed = taken.position, taken.images_seen, taken.stage
        self.last_error: dict[str, float] = {}  # for the progress bar
        device = setting.precision.device
        self.network = taken.network.to(device, memory_format=torch.channels_last)
        self.interval = interval(options.checkpoint_every)
        facts = {"device": device_name(device), "processes": setting.world.size, "commit": commit()}
        self.log("start", **facts, data=setting.packed.absolute(), images=len(setting.train))
        self.epochs = list(taken.epochs)
        self.writer = writer_for(setting.world, folder.checkpoints, FirstSaved(self.log))
        # last, so that nothing that can be refused above leaves a mirror behind
        name = f"{setting.schedule.name}-s{setting.seed}"
        tags = [setting.schedule.name, setting.schedule.arch, options.engine, setting.precision.name, device.type]
        mode = options.wandb if setting.world.first else "off"
        self.wandb = open_wandb(mode, folder, options.project, name, folder.config, tags=tags)
        self.wandb_artifact = options.wandb_artifact

    def log(self, event: str, position: Position | None = None, **fields) -> dict:
        """A record in log.jsonl, returned, that knows where the run stands after it."""
        at = position or self.position
        return self.folder.log.write(event, at=[at.stage, at.epoch, at.step], **fields)

    def begin_stage(self, index: int) -> StageRun:
        """Surgery, then a fresh optimiser and rate, or those of the checkpoint inside this stage."""
        world, stages = self.setting.world, self.setting.schedule.stages
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            self._operate(index)
        world.meet()
        world.same(self.network)
        stage = StageRun(self.setting, self.network, index, resumed)
        row = stage.row
        self.log(
            "stage",
            stage=index,
            name=row.name,
            epochs=row.epochs,
            crop=stage.geometry.crop,
            bn=row.bn,
            learning=stage.learning,
            step=stage.choice.kind,
        )
        say(
            f"stage {index + 1}/{len(stages)} {row.name}: {row.epochs} epochs, crop {stage.geometry.crop}, learns "
            f"{stage.learning} tensors ({', '.join(row.train)})"
        )
        if stage.choice.words:
            say(f"  {stage.choice.words}")
        return stage

    def _operate(self, index: int) -> None:
        """The stage's surgery; a new stem is drawn here, so that a resumed run has the picture too."""
        before = self.network.conv1.weight.detach().float().cpu().numpy()
        operate(self.network, index, self.setting)
        after = self.network.conv1.weight.detach().float().cpu().numpy()
        if before.shape != after.shape:
            path = self.folder.pictures / "stem_filters.png"
            self.setting.world.from_first(lambda: str(pictures.stem_filters(before, after, path)))

    def untrained(self, stage: StageRun, errors: dict, val_loss: float) -> None:
        """Log how a head that knows the classes errs before any training: epoch 0 of the run."""
        record = {
            "stage": stage.index,
            "stage_name": stage.row.name,
            "epoch": 0,
            "epoch_total": 0,
            "val_top1_err": errors["top1"],
            "val_top5_err": errors["top5"],
            "val_loss": val_loss,
        }
        self.log("untrained", **record)
        self.wandb.log(point(record, EPOCHS))
        say(f"  before any training: val top-1 err {errors['top1']:5.2f} %  top-5 {errors['top5']:5.2f} %")

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
            lr, speed = stage.learning_rate.at(epoch * stage.steps_per_epoch + step - 1), stage.speed.read()
            record = {
                "stage": stage.index,
                "epoch": epoch + 1,
                "step": step,
                "images_seen": self.images_seen,
                "lr": lr,
                "train_loss": loss,
                **speed,
            }
            self.log("step", **record)
            self.wandb.log(point(record, IMAGES))
            progress.update(images, loss=loss, **self.last_error)
        else:
            progress.update(images)
        if self.interval.due(step) and self.writer.ready():
            self.check_finite(stage, epoch)
            self._save(Position(stage.index, epoch, step), stage)

    def check_finite(self, stage: StageRun, epoch: int) -> float:
        """The epoch's mean loss so far; Diverged if it is not finite, with what is needed to see why."""
        loss = stage.step.mean_loss()
        if not math.isfinite(loss):
            raise diverged(self.folder.path, self.setting.world, self.setting.schedule, stage, epoch, loss)
        return loss

    def preempt(self, stage: StageRun, epoch: int, step: int) -> None:
        """Save and stop: the same command goes on with the next step."""
        self.check_finite(stage, epoch)
        self._save(Position(stage.index, epoch, step), stage)
        self._check_written()
        raise Preempted(
            f"stopped by a signal in stage {stage.row.name} epoch {epoch + 1} after step {step}; the same "
            "command resumes there"
        )

    def _check_written(self) -> None:
        """Wait for the last checkpoint; MachineError where it could not be written."""
        fault = self.setting.world.from_first(self.writer.wait)
        if fault is not None:
            raise MachineError(f"stopped by a signal, and what was trained since the last checkpoint is lost: {fault}")

    def epoch_done(self, stage: StageRun, epoch: int, errors: dict, val_loss: float, val_s: float) -> None:
        """Log the epoch, tell the rate, save. Errors: see check_validation; MachineError where the folder is gone."""
        check_validation(val_loss, self.setting.schedule, stage, epoch)
        last = epoch + 1 == stage.row.epochs
        position = Position(stage.index + 1) if last else Position(stage.index, epoch + 1)
        record = epoch_record(self.setting, stage, epoch, errors, val_loss, val_s, self.images_seen)
        stages = self.setting.schedule.to_dict()["stages"]
        record["left_s"] = after_epochs(stages, [*self.epochs, record], evaluates=self.evaluates)
        stage.learning_rate.after_epoch(errors["top1"])
        self.last_error = {"err": errors["top1"]}
        self.setting.world.from_first(self.folder.check_there)
        self.epochs.append(self.log("epoch", position, **record))
        for axis in (IMAGES, EPOCHS):
            self.wandb.log(point(record, axis))
        say(epoch_line(record, stage.row.epochs))
        stage.speed.begin_epoch()
        if last:
            stage.average.hand_over()
            self.setting.world.from_first(
                lambda: keep_stage_end(self.setting, self.folder.path, self.network, stage.index, self.images_seen)
            )
        self._save(position, stage, errors["top1"], at_border=last)
        self.setting.world.meet()  # the first process may have waited for its disk

    def _save(self, position: Position, stage: StageRun, error: float | None = None, at_border: bool = False) -> None:
        """A checkpoint; with the stage's optimiser where the stage goes on, without at its border. MachineError where
        the folder is gone."""
        self.folder.check_there()  # no meeting: inside an epoch the first process saves alone
        judged = self.network if at_border else stage.average.network
        metadata = metadata_of(self.setting, stage.row)
        state: dict = {"network": judged.state_dict(), "images_seen": self.images_seen, "metadata": metadata}
        state |= whereabouts(self.folder, position, self.epochs)
        if not at_border:
            state["stage"] = stage.state_dict()
        with self.clock("checkpoint"):
            self.writer.save(position, state, error)
        self.interval.saved()
        self.position = position

    def finish(self, errors: dict, scores: torch.Tensor | None) -> dict:
        """Leave weights, pictures and summary, which is returned. `errors`, `scores`: of the twelve views, if any."""
        return self.setting.world.from_first(lambda: self._publish(errors, scores))

    def _publish(self, errors: dict, scores: torch.Tensor | None) -> dict:
        self.folder.check_there()
        keep_epochs(self.folder, self.epochs)
        summary = publish(self.setting, self.folder, self.network, errors, scores, self.clock, self.started)
        self.log("final", errors=errors)
        self.folder.write_summary(summary)
        mirror(summary, self.setting, self.wandb, self.folder.path, self.wandb_artifact)
        return summary

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind, error, _) -> None:
        self.writer.close()
        code = 0 if error is None else getattr(error, "exit_code", 1)
        hint = self.wandb.close(UPLOAD_TIMEOUT if self.wandb_artifact else CLOSE_TIMEOUT, exit_code=code)
        if hint:
            say(f"W&B: this run was mirrored offline; upload it with: {hint}")
