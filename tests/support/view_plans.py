"""Images and plans for the tests of the numba kernels."""

import numpy as np
import torch

from fastres.schedules.types import ViewSettings
from fastres.views import TWELVE_VIEWS, TestPlan, TrainPlan
from fastres.views.geometry import Geometry


def bytes_of(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def plan_of(kind: str, geometry: Geometry, dtype=torch.float32, channels: int = 3, **settings):
    settings = ViewSettings(**{"impl": "numba", **settings})
    if kind == "train":
        return TrainPlan(
            geometry=geometry, settings=settings, seed=(9 << 32) + 5, stage=1, epoch=3, dtype=dtype, channels=channels
        )
    return TestPlan(geometry=geometry, settings=settings, views=TWELVE_VIEWS, dtype=dtype, channels=channels)
