"""From a network and a stage's row to the step that trains it: the one place where the two meet."""

from collections.abc import Callable
from functools import partial

from torch.nn import functional
from torchvision.models.resnet import ResNet

from fastres.engine.optimizer import groups_of, sgd
from fastres.engine.precision import Precision
from fastres.engine.step import EagerStep
from fastres.engine.steps import step_kind
from fastres.model.freeze import set_trainable, training_mode
from fastres.schedule_types import Schedule, Stage


def stage_step(
    network: ResNet, stage: Stage, schedule: Schedule, precision: Precision,
    kind: Callable[..., EagerStep] | None = None,
) -> EagerStep:  # fmt: skip
    """Freeze `network` as `stage` says, put it in its training mode, and make its optimiser and step.

    kind  the step's class, if not the one `schedule.step` names

    UsageError for a pattern that matches nothing, MachineError for a step or optimiser that cannot run here.
    """
    set_trainable(network, stage.train)
    training_mode(network, stage)  # the step's form of the network depends on it
    optimizer = sgd(groups_of(network, stage), schedule.optimizer, first_rate(stage, schedule))
    loss = partial(functional.cross_entropy, label_smoothing=schedule.label_smoothing)
    return (kind or step_kind(schedule.step))(network, optimizer, precision, loss)


def first_rate(stage: Stage, schedule: Schedule) -> float:
    """The learning rate the stage's policy starts from (Plateau) or rises to (the others)."""
    return stage.lr or schedule.optimizer.lr


def learning_tensors(step: EagerStep) -> int:
    """How many parameter tensors the step updates."""
    return sum(len(group["params"]) for group in step.optimizer.param_groups)
