"""The cases that the Triton kernel is tried on, and the comparison of each with the definition."""

from dataclasses import replace

import numpy as np
import torch

from fastres import views
from fastres.schedules.types import ViewSettings
from fastres.views import TWELVE_VIEWS, TestPlan, TrainPlan
from fastres.views.geometry import Geometry
from tests.support.augmented import plan_of
from tests.support.view_bound import bound

SEED = (0xFEDC << 48) + 5  # more than 63 bits
EXTREME = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "lighting": 1.0}
HALF_PIXEL = {"convention": "half-pixel"}


def train(side, upscale, count, dtype=torch.float32, channels=3, **settings):
    settings = ViewSettings(impl="triton", **settings)
    plan = TrainPlan(
        geometry=Geometry(side, upscale), settings=settings, seed=SEED, stage=1, epoch=3, dtype=dtype, channels=channels
    )
    return plan, count


def fixed(side, upscale, count, which=slice(None), dtype=torch.float32, **settings):
    settings = ViewSettings(impl="triton", **settings)
    return TestPlan(geometry=Geometry(side, upscale), settings=settings, views=TWELVE_VIEWS[which], dtype=dtype), count


CASES = {  # what each probes: (plan, number of samples)
    "training shape": train(64, 4, 1),  # several blocks of columns and of rows
    "training shape, half-pixel": train(64, 4, 1, **HALF_PIXEL),
    "after size adaptation": train(64, 1, 2),
    "smallest": train(8, 1, 6),
    "smallest, enlarged": train(8, 2, 4),
    "odd side of the crop": train(24, 1, 3, **HALF_PIXEL),
    "upscale 3": train(16, 3, 2),
    "side not a power of two": train(40, 2, 1, **HALF_PIXEL),
    "extreme": train(8, 2, 12, **EXTREME),
    "no augmentation": train(8, 1, 3, brightness=0.0, contrast=0.0, saturation=0.0, lighting=0.0, flip=0.0),
    "always mirrored": train(8, 2, 3, flip=1.0),
    "bfloat16": train(16, 2, 3, dtype=torch.bfloat16),
    "float16": train(16, 2, 3, dtype=torch.float16),
    "four channels": train(16, 2, 2, channels=4),
    "four channels, no resampling": train(8, 1, 2, channels=4, dtype=torch.bfloat16),
    "twelve views": fixed(8, 2, 2),
    "twelve views, no resampling": fixed(16, 1, 1),
    "twelve views, shrinking with antialias": fixed(16, 1, 1, **HALF_PIXEL),
    "larger side": train(96, 1, 2, **EXTREME),  # with a white image, see inputs
    "resized": (plan_of("resized", Geometry(16, 2), "triton"), 3),
    "erased": (plan_of("erased", Geometry(8, 2), "triton"), 6),
    "both": (plan_of("both", Geometry(8, 1), "triton"), 9),
    "mixed, bfloat16": (plan_of("both", Geometry(8, 1), "triton", torch.bfloat16), 8),
    "everything": (plan_of("everything", Geometry(16, 2), "triton", channels=4), 5),
    "everything, shrinking": (plan_of("everything", Geometry(16, 1), "triton"), 7),
    "nearly whole": (plan_of("nearly whole", Geometry(24, 1), "triton"), 3),
    "half as large again": train(16, 1.5, 2),
    # a crop that is smaller than the image it is cut from, though that is enlarged: five taps
    "enlarged a little, resized": (plan_of("resized", Geometry(64, 1.125), "triton"), 1),
    "enlarged a little, full": fixed(72, 80 / 72, 1, slice(7, 8), **HALF_PIXEL),
    "packed large": train(32, 0.5, 2, **HALF_PIXEL),
    "packed large, everything": (plan_of("everything", Geometry(32, 0.25), "triton"), 3),
    "twelve views, packed large": fixed(24, 1 / 3, 1, **HALF_PIXEL),
    "test shape": fixed(64, 4, 1, slice(7, 11, 3)),  # top right mirrored, and full
}
LARGE = [  # half a minute in the interpreter
    *("after size adaptation", "upscale 3", "float16", "four channels", "always mirrored"),
    *("training shape", "training shape, half-pixel", "test shape", "side not a power of two", "odd side of the crop"),
    *(
        "twelve views",
        "twelve views, no resampling",
        "twelve views, shrinking with antialias",
        "larger side",
        "extreme",
    ),
    *("resized", "everything, shrinking", "nearly whole", "mixed, bfloat16"),
    *("half as large again", "packed large", "packed large, everything"),
    *("enlarged a little, resized", "enlarged a little, full"),
]
HALF_BITS = {torch.float32: None, torch.bfloat16: 8, torch.float16: 11}


def inputs(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(side)
    images = torch.from_numpy(rng.integers(0, 256, (count + 2, side, side, 3), dtype=np.uint8))
    images[0], images[-1, ..., 0], images[-2] = 0, 255, 255
    rows = torch.arange(count).flip(0) + 2
    return images, rows, rows * 7919 + 11


def _unit_of(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """A unit in the last of `bits` binary places of each number, f64; of float16's smallest where they are smaller."""
    return 2.0 ** (torch.frexp(numbers).exponent.clamp(min=-13) - bits)


def make(name: str, device: str) -> torch.Tensor:
    plan, count = CASES[name]
    images, rows, ids = (tensor.to(device) for tensor in inputs(count, plan.geometry.side))
    out = views.apply(images, rows, ids, plan)
    assert out.is_contiguous(memory_format=torch.channels_last) and out.dtype == plan.dtype
    return out.cpu()


def check(name: str, ours: torch.Tensor, cut: bool = False) -> None:
    """`cut`: a bfloat16 may be a whole unit in the last place off, not half."""
    plan, count = CASES[name]
    images, rows, ids = inputs(count, plan.geometry.side)
    settings = replace(plan.settings, impl="reference")
    truth = views.apply(images, rows, ids, replace(plan, settings=settings, dtype=torch.float64))
    assert ours.shape == truth.shape
    allowed = bound(images, rows, ids, plan)
    if bits := HALF_BITS[plan.dtype]:
        allowed += _unit_of(truth, bits) / (1 if cut else 2)
        if isinstance(plan, TrainPlan) and plan.settings.mixes:  # both views were rounded before
            apart = replace(plan, settings=replace(settings, mixing=0.0), dtype=torch.float64)
            parts = _unit_of(views.apply(images, rows, ids, apart), bits)
            pairs = len(parts) // 2 * 2
            parts[:pairs] = parts[:pairs].unflatten(0, (-1, 2)).amax(1).repeat_interleave(2, 0)
            allowed += parts / (1 if cut else 2)
    assert ((ours - truth).abs() <= allowed).all()
