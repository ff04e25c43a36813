"""Which step a run takes, by the names of schedule_types.STEPS; chosen before the loop starts."""

from fastres.engine.captured import CapturedStep
from fastres.engine.step import CompiledStep, EagerStep, PlainStep

STEPS = {"eager": EagerStep, "plain": PlainStep, "compiled": CompiledStep, "captured": CapturedStep}


def step_kind(name: str) -> type[EagerStep]:
    """`auto` is eager: on CPUs compiling was slower, and on GPUs nothing has been measured yet."""
    return STEPS["eager" if name == "auto" else name]
