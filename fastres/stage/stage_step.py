"""From a network and a stage's row to the step that trains it: the one place where the two meet."""

from collections.abc import Callable
from functools import partial

from torch.nn import functional

from fastres.machine.device import Precision
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import ResNet
from fastres.schedules.types import Schedule, Stage
from fastres.stage.captured import CapturedStep, check_capture
from fastres.stage.fused import CapturedFusedStep, FusedStep, check_fused, is_fused
from fastres.stage.optimizer import optimizer_of
from fastres.stage.padded import CapturedFusedPaddedStep, CapturedPaddedStep, FusedPaddedStep, PaddedStep
from fastres.stage.pull import pull_of
from fastres.stage.step import CompiledStep, EagerStep, PlainStep

STEPS = {
    "eager": EagerStep,
    "plain": PlainStep,
    "compiled": CompiledStep,
    "captured": CapturedStep,
    "fused": FusedStep,
    "captured-fused": CapturedFusedStep,
    "padded": PaddedStep,
    "captured-padded": CapturedPaddedStep,
    "fused-padded": FusedPaddedStep,
    "captured-fused-padded": CapturedFusedPaddedStep,
}


def stage_step(
    network: ResNet,
    stage: Stage,
    schedule: Schedule,
    precision: Precision,
    kind: Callable[..., EagerStep] | None = None,
) -> EagerStep:
    """Freeze `network` as `stage` says, put it in its training mode, and make its optimiser and step.

    kind  the step's class, if not the one `schedule.step` names

    UsageError for a pattern that matches nothing, MachineError for a step or optimiser that cannot run here.
    """
    set_trainable(network, stage.train)
    training_mode(network, stage)  # the step's form of the network depends on it
    optimizer = optimizer_of(network, stage, schedule.optimizer, first_rate(stage, schedule))
    loss = partial(functional.cross_entropy, label_smoothing=schedule.label_smoothing)
    pull = pull_of(optimizer, stage.pull)
    return (kind or step_kind(schedule.step))(network, optimizer, precision, loss, pull)


def first_rate(stage: Stage, schedule: Schedule) -> float:
    """The learning rate the stage's policy starts from (Plateau) or rises to (the others)."""
    return stage.lr or schedule.optimizer.lr


def learning_tensors(step: EagerStep) -> int:
    """How many parameter tensors the step updates."""
    return sum(len(group["params"]) for group in step.optimizer.param_groups)


def step_kind(name: str) -> type[EagerStep]:
    """The class of a step by its name; `auto` is eager, the network in its folded form (model/fold.py), which needs no
    warm-up: where a stage of a run chooses for itself, choosing/choose.py does.

    From `bench steps` at the small world's sizes on two cores: eager took 1.33 (head alone) and 1.12 times (first layer
    alone) the torchvision loop's rate, 1.00 and 1.10 for everything. torch.compile was slower than eager in a first
    trial there; a record with `--compiled` has not been made.
    """
    return STEPS["eager" if name == "auto" else name]


def check_step(
    kind: type[EagerStep], optimizer: str, precision: Precision, engine: str, impl: str = "auto", sync_bn: bool = False
) -> None:
    """Before any training: whether steps of `kind` can be made with optimizer.impl `optimizer` and `engine`'s data.

    impl     views.impl
    sync_bn  BatchNorm goes over several processes

    UsageError where another setting makes it possible, MachineError where the machine does not.
    """
    if issubclass(kind, CapturedStep):
        check_capture(optimizer, precision, engine, impl)
    if is_fused(kind):
        check_fused(precision.device, sync_bn)
