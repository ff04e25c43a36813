"""How a run ends when it does not end well: noted in its summary, told in one sentence."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fastres import report
from fastres.errors import Diverged, FastresError, MachineError, Preempted
from fastres.files import write_atomic
from fastres.schedule_types import Schedule
from fastres.track.console import say
from fastres.track.run_dir import RunDir

if TYPE_CHECKING:
    from fastres.run import Run
    from fastres.stage_run import StageRun


@contextmanager
def noted(folder: RunDir, schedule: Schedule, seed: int, device: torch.device) -> Iterator[None]:
    """Whatever fault ends the block is noted in the summary first. A full GPU becomes a MachineError.

    The summary of the try before is removed: a run that is killed must not be taken for one that was preempted.
    """
    folder.forget_summary()
    try:
        yield
    except FastresError as error:
        _note(folder, schedule, seed, error)
        raise
    except torch.cuda.OutOfMemoryError as error:
        fault = MachineError(
            f"the GPU's memory is full at batch size {schedule.batch_size} after {report.peak_memory_gb(device):.1f} "
            f"GB; lower it with --set batch_size={max(1, schedule.batch_size // 2)} in another --run-dir"
        )
        _note(folder, schedule, seed, fault)
        raise fault from error
    except Exception as bug:
        _note(folder, schedule, seed, FastresError(f"ended with {bug!r}"))
        raise


def diverged(run: "Run", stage: "StageRun", epoch: int, loss: float) -> Diverged:
    """The fault for a loss that is not finite; what is needed to see why is in diverged.json. By all processes."""
    dump = run.folder.path / "diverged.json"
    content = json.dumps(stage.faulty_batch(epoch)).encode() + b"\n"
    run.world.from_first(lambda: write_atomic(dump, content))
    return Diverged(
        f"the training loss is {loss} in stage {stage.row.name} epoch {epoch + 1}, expected a finite number; "
        f"see {dump}, and try a lower rate in another --run-dir: {lower_rate(run.schedule, stage.index)}"
    )


def lower_rate(schedule: Schedule, index: int) -> str:
    """train's option for a quarter of a stage's rate."""
    own = schedule.stages[index].lr
    if own is None:
        return f"--set optimizer.lr={schedule.optimizer.lr / 4:g}"
    return f"--set stages.{index}.lr={own / 4:g}"


def _note(folder: RunDir, schedule: Schedule, seed: int, error: FastresError) -> None:
    status = {Diverged: "diverged", Preempted: "preempted"}.get(type(error), "failed")
    facts = {"status": status, "exit_code": error.exit_code, "error": str(error)}
    try:
        folder.write_summary({**facts, "schedule": schedule.name, "seed": seed})
    except MachineError as full:  # the fault that ended the run is the one to be told
        say(f"not noted in the summary: {full}")
