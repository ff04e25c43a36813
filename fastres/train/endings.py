"""How a run ends when it does not end well: noted in its summary, told in one sentence."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastres.machine import strict_json
from fastres.machine.console import say
from fastres.machine.errors import Diverged, FastresError, MachineError, Preempted, machine_fault, of_the_machine
from fastres.machine.facts import peak_memory_gb
from fastres.machine.files import write_atomic
from fastres.machine.gpu import is_full
from fastres.machine.processes.world import World
from fastres.schedules.types import Schedule
from fastres.stage.stage_run import StageRun
from fastres.track.run_dir import RunDir


@contextmanager
def noted(folder: RunDir, schedule: Schedule, seed: int, device: torch.device) -> Iterator[None]:
    """Whatever fault ends the block is noted in the summary first. A full GPU becomes a MachineError, and so does any
    other exception of the machine, with its traceback in the folder.

    The summary of the try before is removed: a run that is killed must not be taken for one that was preempted.
    """
    folder.forget_summary()
    try:
        yield
    except FastresError as error:
        _note(folder, schedule, seed, error)
        raise
    except Exception as bug:
        if is_full(bug):
            fault = MachineError(
                f"the GPU's memory is full at batch size {schedule.batch_size} after {peak_memory_gb(device):.1f} "
                f"GB; lower it with --set batch_size={schedule.half_a_batch} in another --run-dir"
            )
            _note(folder, schedule, seed, fault)
            raise fault from bug
        if of_the_machine(bug):
            fault = machine_fault(bug, folder.path)
            _note(folder, schedule, seed, fault)
            raise fault from bug
        _note(folder, schedule, seed, FastresError(f"ended with {bug!r}"))
        raise


def diverged(folder: Path, world: World, schedule: Schedule, stage: StageRun, epoch: int, loss: float) -> Diverged:
    """The fault for a loss that is not finite; what is needed to see why is in diverged.json. By all processes."""
    dump = folder / "diverged.json"
    content = strict_json.dumps(stage.faulty_batch(epoch)).encode() + b"\n"
    world.from_first(lambda: write_atomic(dump, content))
    return Diverged(
        f"the training loss is {loss} in stage {stage.row.name} epoch {epoch + 1}, expected a finite number; "
        f"see {dump}, and try a lower rate in another --run-dir: {lower_rate(schedule, stage.index)}"
    )


def check_validation(loss: float, schedule: Schedule, stage: StageRun, epoch: int) -> None:
    """Diverged where an epoch's validation loss is not finite: its last update, which no training loss has seen, may
    have been one too many."""
    if not math.isfinite(loss):
        raise Diverged(
            f"the validation loss is {loss} in stage {stage.row.name} epoch {epoch + 1}, expected a finite "
            f"number; try a lower rate in another --run-dir: {lower_rate(schedule, stage.index)}"
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
    if not folder.there:
        return  # the summary there is another run's, or nobody's
    try:
        folder.write_summary({**facts, "schedule": schedule.name, "seed": seed})
    except MachineError as full:  # the fault that ended the run is the one to be told
        say(f"not noted in the summary: {full}")
