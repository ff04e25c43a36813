"""How the views kernel cuts a view into programs: sizes that decide its speed and none of its results."""

from collections.abc import Callable
from typing import NamedTuple

from fastres.views.plan import Plan, TrainPlan


class Blocks(NamedTuple):
    """Output rows of a program, flat output columns of its step, warps."""

    rows: int
    columns: int
    warps: int


# Fewer rows: more programs, and each pays for the mean colour (as many bytes as it has pixels) and three extra source
# rows. Two columns a thread make 4-byte stores of bfloat16; 56 rows make 4 programs of a 224-pixel view. Chosen from
# the compiled code, not tuned on a device.
DEFAULT = Blocks(56, 256, 4)
CANDIDATES = (
    DEFAULT,
    Blocks(28, 256, 4),
    Blocks(112, 256, 4),
    Blocks(56, 128, 4),
    Blocks(56, 512, 4),
    Blocks(56, 512, 8),
)
LEAST_GAIN = 0.02  # of the default's time: two timings of the same kernel differ by as much
_chosen: dict[tuple, Blocks] = {}


def blocks_of(plan: Plan) -> Blocks:
    """What launches of such plans use."""
    return _chosen.get(_kind(plan), DEFAULT)


def use(plan: Plan, blocks: Blocks) -> None:
    """From now on, for launches of such plans in this process; a graph recorded before keeps its own."""
    _chosen[_kind(plan)] = blocks


def tune(plan: Plan, seconds: Callable[[], float]) -> Blocks:
    """Try the candidates and go on with the fastest, which is returned.

    seconds  how long some launches of `plan` take, with the blocks in use when it is called
    """
    took = {}
    for blocks in CANDIDATES:
        use(plan, blocks)
        took[blocks] = seconds()
    best = min(took, key=took.get)
    use(plan, best if took[best] < (1 - LEAST_GAIN) * took[DEFAULT] else DEFAULT)
    return blocks_of(plan)


def _kind(plan: Plan) -> tuple:
    views = None if isinstance(plan, TrainPlan) else plan.views
    boxes = plan.settings.crop, plan.settings.erasing > 0
    return plan.geometry, views, plan.convention, plan.channels, plan.dtype, boxes
