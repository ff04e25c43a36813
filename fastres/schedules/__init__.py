"""THE experiments. Read this package and you know every run.

    python -m fastres.train --schedule NAME

paper.py has every system of the paper, torch7.py the same by the defaults of its authors' tools, beyond.py what it left
open, small.py the small world, quarter.py the paper at a quarter of its size on real photos. A schedule is a literal
table of stages, a variant is `replace(PAPER, ...)`, derived numbers are computed elsewhere. Every schedule is complete:
stages that two have in common are trained once with `--start-from`. Write your own in a file that defines SCHEDULE and
pass its path as NAME.
"""

from fastres.schedules.beyond import (
    ANTIALIAS,
    CONV1_BATCH,
    CONV1_FROZEN,
    GRADUAL,
    IMPATIENT,
    KNOWN_CLASSES,
    LAYER_DECAY,
    MODERN,
    ONE_CYCLE,
    PER_LAYER_LR,
    PI_RESIZE,
    PLAIN_NAIVE,
    PLAIN_STAGED,
    PULL,
    PULLBACK,
    SCRATCH,
    SURGICAL,
    TEST_SIZE,
    TORCH7_RAW,
)
from fastres.schedules.paper import (
    CONV1_BLANK,
    CONV1_NAIVE,
    FEATURE_EXTRACTOR,
    FEATURE_EXTRACTOR_50,
    FROM_SCRATCH,
    INITIALIZED_FC,
    NAIVE_FC,
    PAPER,
)
from fastres.schedules.quarter import PRETRAIN, PRETRAIN_50, PRETRAIN_PLAIN
from fastres.schedules.small import DEMO, SMALL_WORLD_PRETRAIN, SMALL_WORLD_PRETRAIN_50, small_world
from fastres.schedules.torch7 import TORCH7

SYSTEMS = (
    NAIVE_FC,
    FEATURE_EXTRACTOR,
    FEATURE_EXTRACTOR_50,
    INITIALIZED_FC,
    PAPER,
    CONV1_NAIVE,
    CONV1_BLANK,
    FROM_SCRATCH,
)
BEYOND = (
    TORCH7_RAW,
    ANTIALIAS,
    PI_RESIZE,
    PULLBACK,
    CONV1_FROZEN,
    CONV1_BATCH,
    PER_LAYER_LR,
    LAYER_DECAY,
    SURGICAL,
    PULL,
    GRADUAL,
    TEST_SIZE,
    KNOWN_CLASSES,
    IMPATIENT,
    ONE_CYCLE,
    MODERN,
)
PLAIN = (PLAIN_NAIVE, PLAIN_STAGED)  # where a net for them is pretrained
PRETRAINED_HERE = (SMALL_WORLD_PRETRAIN, SMALL_WORLD_PRETRAIN_50, PRETRAIN, PRETRAIN_50, PRETRAIN_PLAIN)
SCHEDULES = {s.name: s for s in (*SYSTEMS, *TORCH7, *BEYOND, *PLAIN, SCRATCH, DEMO, *PRETRAINED_HERE)}

__all__ = [
    "BEYOND",
    "DEMO",
    "PAPER",
    "PLAIN",
    "PRETRAIN",
    "PRETRAIN_50",
    "SCHEDULES",
    "SMALL_WORLD_PRETRAIN",
    "SMALL_WORLD_PRETRAIN_50",
    "SYSTEMS",
    "TORCH7",
    "small_world",
]
