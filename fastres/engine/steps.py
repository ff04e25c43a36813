"""Which step a run takes, by the names of schedule_types.STEPS; chosen before the loop starts."""

from fastres.engine.captured import CapturedStep
from fastres.engine.step import CompiledStep, EagerStep, PlainStep

STEPS = {"eager": EagerStep, "plain": PlainStep, "compiled": CompiledStep, "captured": CapturedStep}


def step_kind(name: str) -> type[EagerStep]:
    """The class of a step by its name; `auto` is eager, the network in its folded form (model/fold.py).

    CPU   from `bench steps` at the small world's sizes on two cores: eager took 1.33 (head alone) and 1.12 times (first
          layer alone) the torchvision loop's rate, 1.00 and 1.10 for everything. torch.compile was slower than
          eager in a first trial there; a record with `--compiled` has not been made.
    CUDA  nothing has been measured. Eager is what needs no warm-up: compiling each stage is expected to cost tens of
          seconds of a run of minutes, and a captured graph needs the resident engine, torch's SGD and no fp16.
          `bench steps` on the GPU in question says which of the three to ask for (`--set step=captured`).
    """
    return STEPS["eager" if name == "auto" else name]
