"""What to make of each image: a plan is all a views kernel needs besides pixels and ids."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from fastres.machine.errors import UsageError
from fastres.schedules.types import ViewSettings
from fastres.views.boxes import crop_boxes, erased_boxes
from fastres.views.draw import Draws, Key, draw
from fastres.views.geometry import Geometry
from fastres.views.mixing import Mixtures, mixtures


@dataclass(frozen=True)
class TestView:
    """One fixed view. `vertical`, `horizontal`: 0 = top/left, 1/2 = centre, 1 = bottom/right; whole = full image."""

    name: str
    vertical: float
    horizontal: float
    mirrored: bool
    whole: bool = False

    __test__ = False  # pytest: not a test class

    def __post_init__(self) -> None:
        if not (0 <= self.vertical <= 1 and 0 <= self.horizontal <= 1):
            raise UsageError(f"view {self.name!r} lies at {self.vertical}, {self.horizontal}: expected 0 to 1 each")

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

    @property
    def key(self) -> Key:
        return Key(self.seed, self.stage, self.epoch)

    def boxes(self, ids: np.ndarray) -> np.ndarray | None:
        """What resized crops show: f64 [B, 4] of boxes.crop_boxes, in pixels of the image; None for fixed crops."""
        if self.settings.crop == "fixed":
            return None
        return crop_boxes(ids, self.key, self.settings) * self.geometry.side

    def erased(self, ids: np.ndarray) -> np.ndarray:
        """What is erased of each view: i64 [B, 4] of boxes.erased_boxes, in pixels of the view."""
        if not self.settings.erasing:
            return np.zeros((len(ids), 4), np.int64)
        return erased_boxes(ids, self.key, self.settings, self.geometry.crop)

    def mixtures(self, ids: np.ndarray) -> Mixtures | None:
        """How the pairs of a batch are mixed; None where no pair ever is."""
        return mixtures(ids, self.key, self.settings, self.geometry.crop) if self.settings.mixes else None


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


def twelve_views(geometry: Geometry, settings: ViewSettings, dtype: torch.dtype = torch.float32) -> TestPlan:
    """The twelve views of every image that the paper's error table is made from."""
    return TestPlan(geometry=geometry, settings=settings, views=TWELVE_VIEWS, dtype=dtype)
