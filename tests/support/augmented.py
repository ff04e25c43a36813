"""Plans with what the paper's views have not: each alone, and all together."""

import torch

from fastres.schedules.types import ViewSettings
from fastres.views import TrainPlan
from fastres.views.geometry import Geometry

RESIZED = {"crop": "resized", "convention": "half-pixel"}
AUGMENTED = {
    "resized": RESIZED,
    "nearly whole": {**RESIZED, "scale": (0.9, 1.0), "ratio": (0.8, 1.6)},
    "erased": {"erasing": 0.8},
    "erased, half-pixel": {"erasing": 0.8, "convention": "half-pixel"},
    "mixup": {"mixup": 0.8},
    "cutmix": {"cutmix": 1.0, "mixing": 0.8},
    "both": {"mixup": 0.2, "cutmix": 1.0, "mixing": 0.9},
    "everything": {**RESIZED, "erasing": 0.6, "mixup": 0.4, "cutmix": 1.0, "mixing": 0.9},
}


def plan_of(name: str, geometry: Geometry, impl: str, dtype: torch.dtype = torch.float32, **more) -> TrainPlan:
    """The plan of an entry of AUGMENTED; `more`: other fields of the plan."""
    settings = ViewSettings(**AUGMENTED[name], impl=impl)
    return TrainPlan(geometry=geometry, settings=settings, seed=5, stage=1, epoch=3, dtype=dtype, **more)
