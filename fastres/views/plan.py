"""What to make of each image: a plan is all a views kernel needs besides pixels and ids."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fastres.geometry import Geometry
from fastres.schedule_types import ViewSettings
from fastres.views.draw import Draws, draw


@dataclass(frozen=True)
class TestView:
    """One fixed view. `vertical`, `horizontal`: 0 = top/left, 1/2 = centre, 1 = bottom/right; whole = full image."""

    name: str
    vertical: float
    horizontal: float
    mirrored: bool
    whole: bool = False

    __test__ = False  # pytest: not a test class

    def offset(self, geometry: Geometry) -> tuple[int, int]:
        """Top and left of the crop in the resized image; the centre is ceil(room / 2), as fb.resnet.torch has it."""
        return math.ceil(geometry.room * self.vertical), math.ceil(geometry.room * self.horizontal)


# Section 4.2 and figure 4: ten-crop = centre and four corners, and the same mirrored; 12-crop adds the full image
# rescaled to crop size and its mirror.
TWELVE_VIEWS = (
    # name                  vertical  horizontal  mirrored  whole
    TestView("centre",           0.5,        0.5,    False),
    TestView("top left",         0.0,        0.0,    False),
    TestView("top right",        0.0,        1.0,    False),
    TestView("bottom left",      1.0,        0.0,    False),
    TestView("bottom right",     1.0,        1.0,    False),
    TestView("centre'",          0.5,        0.5,     True),
    TestView("top left'",        0.0,        0.0,     True),
    TestView("top right'",       0.0,        1.0,     True),
    TestView("bottom left'",     1.0,        0.0,     True),
    TestView("bottom right'",    1.0,        1.0,     True),
    TestView("full",             0.0,        0.0,    False,    True),
    TestView("full'",            0.0,        0.0,     True,    True),
)  # fmt: skip
CENTRE_VIEW = TWELVE_VIEWS[:1]


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """One random view per sample, drawn from (seed, stage, epoch, sample id).

    channels  3, or 4: a fourth one of zeros, which some convolutions prefer
    """

    geometry: Geometry
    settings: ViewSettings
    seed: int
    stage: int
    epoch: int
    dtype: torch.dtype = torch.float32
    channels: int = 3

    @property
    def convention(self) -> str:
        return self.settings.convention

    def draws(self, ids: np.ndarray) -> Draws:
        """The chance of `ids`, i64 [B]."""
        return draw(
            ids, seed=self.seed, stage=self.stage, epoch=self.epoch, room=self.geometry.room, settings=self.settings
        )


@dataclass(frozen=True, kw_only=True)
class TestPlan:
    """The same fixed views of every sample: V views per image, image by image; channels as in TrainPlan."""

    geometry: Geometry
    settings: ViewSettings
    views: tuple[TestView, ...] = CENTRE_VIEW
    dtype: torch.dtype = torch.float32
    channels: int = 3

    __test__ = False

    @property
    def convention(self) -> str:
        return self.settings.convention


Plan = TrainPlan | TestPlan
