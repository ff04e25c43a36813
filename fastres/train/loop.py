"""The procedure: for stage, for epoch, for batch (paper, sections 3 and 5); then 12-crop evaluation."""

import gc
import time
from collections.abc import Callable

import torch

from fastres import views
from fastres.data.slices import slices
from fastres.evaluate import combining
from fastres.evaluate.scores import evaluate, scores_on_device
from fastres.machine.console import Progress
from fastres.machine.processes.signals import StopRequest
from fastres.schedules.types import KNOWN_HEAD
from fastres.stage.stage_run import StageRun
from fastres.train.run import Run
from fastres.views.geometry import Geometry


def train(run: Run, stop: StopRequest) -> dict:
    """Run every stage that is still to do, then evaluate. Returns the summary. Preempted after a signal."""
    for stage_index in range(run.position.stage, len(run.setting.schedule.stages)):
        run.stop_if_asked(stop)
        train_stage(run, stage_index, stop)
        gc.collect()  # drawing leaves cycles of frames, whose callers hold the stage: on a GPU gigabytes
    return run.finish(*(final_errors(run, stop) if run.evaluates else ({}, None)))


def train_stage(run: Run, index: int, stop: StopRequest) -> None:
    """The rest of one stage. With the return goes all that it held on the device, before the next one fills it."""
    stage = run.begin_stage(index)
    if KNOWN_HEAD in stage.row.surgery and run.position.epoch == run.position.step == 0:
        run.untrained(stage, *judge(run, stage))
    for epoch in range(run.position.epoch, stage.row.epochs):
        train_epoch(run, stage, epoch, stop)
        validate_epoch(run, stage, epoch, stop)


def train_epoch(run: Run, stage: StageRun, epoch: int, stop: StopRequest) -> None:
    """One pass over the training images from wherever the run stands in it."""
    schedule, world = run.setting.schedule, run.setting.world
    plan, order = stage.plan(epoch), stage.order(epoch)
    first = run.position.step
    label = f"stage {stage.index + 1}/{len(schedule.stages)} {stage.row.name} epoch {epoch + 1}/{stage.row.epochs}"
    if first == 0:
        stage.step.begin_epoch()
    stage.training_mode()
    done = first * schedule.batch_size
    cut = schedule.views.together
    batches = slices(run.setting.train, order[done:], schedule.batch_size, world.rank, world.size, cut)
    with Progress(len(order), label, done=done) as progress, stage.speed.epoch_running():
        progress.update(0, **run.last_error)
        for step, batch in enumerate(stage.speed.fed(batches), start=first):
            stage.step(batch, plan, stage.learning_rate.at(epoch * stage.steps_per_epoch + step))
            stage.average.update()
            stage.speed.step(batch.step_images)
            run.step_done(stage, epoch, step + 1, batch.step_images, progress)
            if stop.agreed():
                run.preempt(stage, epoch, step + 1)
        run.check_finite(stage, epoch)  # reads the loss, so the clock sees the work done


def validate_epoch(run: Run, stage: StageRun, epoch: int, stop: StopRequest) -> None:
    """Centre-crop validation, the default test method of fb.resnet.torch; then the rate rule and a checkpoint."""
    started = time.perf_counter()
    if stop.agreed():
        run.preempt(stage, epoch, stage.steps_per_epoch)
    more = epoch + 1 < stage.row.epochs
    errors, loss = judge(run, stage, meanwhile=lambda: stage.order(epoch + 1) if more else None)
    run.epoch_done(stage, epoch, errors, loss, time.perf_counter() - started)


def judge(run: Run, stage: StageRun, meanwhile: Callable[[], object] = lambda: None) -> tuple[dict[str, float], float]:
    """Centre-crop errors in % of the validation images, and their mean loss (nats).

    `meanwhile`: what the host does while a GPU is at it. Three numbers are read back, at once.
    """
    setting = run.setting
    plan = views.TestPlan(geometry=stage.geometry, settings=setting.schedule.views, dtype=setting.precision.dtype)
    network = stage.average.network
    scores = scores_on_device(
        network,
        setting.val,
        plan,
        setting.precision,
        label="validation",
        world=setting.world,
        compile=run.compiled,
        forms=run.forms,
    )[:, 0]
    labels = setting.val.labels.to(scores.device)
    loss = torch.nn.functional.cross_entropy(scores, labels).double()
    found = torch.cat([combining.error_rates(scores.double(), labels), loss[None]])
    meanwhile()
    top1, top5, mean_loss = found.cpu().tolist()
    return {"top1": top1, "top5": top5}, mean_loss


def final_errors(run: Run, stop: StopRequest) -> tuple[dict, torch.Tensor]:
    """The error table of the twelve views, in the last stage's geometry, and the scores f32 [N, 12, C] behind it."""
    setting, last = run.setting, run.setting.schedule.stages[-1]
    geometry = Geometry(setting.manifest.side, last.upscale, last.whole)
    with run.clock("evaluation"):
        return evaluate(
            run.network,
            setting.val,
            geometry,
            setting.schedule.views,
            setting.precision,
            stop.check,
            setting.world,
            compile=run.compiled,
            forms=run.forms,
        )
