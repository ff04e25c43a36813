"""How training images become input: resampling, augmentation and which implementation does it."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fastres.schedules.check import check, settle_types

CONVENTIONS = ("half-pixel", "torch7")  # of bicubic resampling; views/resample.py says what they are
VIEW_IMPLS = ("auto", "numba", "triton", "torch", "reference")
CROPS = ("fixed", "resized")


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """Augmentation and resampling. The paper's (section 4.2) are the first six; the others are off by default.

    convention                        which bicubic, see views/resample.py
    brightness, contrast, saturation  jitter factors are uniform in 1 +- this
    lighting                          standard deviation of the PCA lighting noise
    flip                              probability of mirroring
    impl                              which implementation of the views, one of VIEW_IMPLS; auto chooses by device
    crop      fixed: 7/8 of the side at a random place, as the paper has it; resized: a box of random area and shape,
              resampled to the same size (Szegedy et al. 2015; torchvision's RandomResizedCrop), half-pixel only
    scale     of a resized crop: least and largest share of the image's area
    ratio     of a resized crop: least and largest width over height
    erasing         probability that a box of the view becomes the mean colour (Zhong et al. 2017), which is 0
    erasing_scale   least and largest share of the view's area that is erased
    erasing_ratio   least and largest width over height of what is erased
    mixup     alpha of Beta(alpha, alpha), from which the weights of two mixed views come (Zhang et al. 2018); 0: none
    cutmix    alpha of the share of the view that stays where a box of it is the partner's (Yun et al. 2019); 0: none
    mixing    probability that two views are mixed; with mixup and cutmix both, each takes half of them
    """

    convention: str = "torch7"
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    lighting: float = 0.1
    flip: float = 0.5
    impl: str = "auto"
    crop: str = "fixed"
    scale: tuple[float, ...] = (0.08, 1.0)
    ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    erasing: float = 0.0
    erasing_scale: tuple[float, ...] = (0.02, 1 / 3)
    erasing_ratio: tuple[float, ...] = (0.3, 3.3)
    mixup: float = 0.0
    cutmix: float = 0.0
    mixing: float = 1.0

    def __post_init__(self) -> None:
        settle_types(self, "views.")
        check(self.convention in CONVENTIONS, "views.convention", self.convention, " or ".join(CONVENTIONS))
        for name in ("brightness", "contrast", "saturation"):
            check(0 <= getattr(self, name) <= 1, f"views.{name}", getattr(self, name), "0 to 1")
        check(self.lighting >= 0, "views.lighting", self.lighting, "0 or more")
        for name in ("flip", "erasing", "mixing"):
            check(0 <= getattr(self, name) <= 1, f"views.{name}", getattr(self, name), "a probability")
        check(self.impl in VIEW_IMPLS, "views.impl", self.impl, "one of " + ", ".join(VIEW_IMPLS))
        check(self.crop in CROPS, "views.crop", self.crop, " or ".join(CROPS))
        for name in ("scale", "erasing_scale"):
            self._check_range(name, 0.0, 1.0, "least,largest share of the area, such as 0.08,1")
        for name in ("ratio", "erasing_ratio"):
            self._check_range(name, 0.01, 100.0, "least,largest width over height in 0.01 to 100, such as 0.75,1.33")
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            check(value == 0 or LEAST_ALPHA <= value <= MOST_ALPHA, f"views.{name}", value,
                  f"0 (none) or {LEAST_ALPHA} to {MOST_ALPHA}")  # fmt: skip
        check(self.crop == "fixed" or self.convention == "half-pixel", "views.convention", self.convention,
              "half-pixel where views.crop is resized")  # fmt: skip

        defaults = {field.name: field.default for field in fields(self)}
        for switch, on, names in (
            ("views.crop=resized", self.crop == "resized", ("scale", "ratio")),
            ("views.erasing", self.erasing > 0, ("erasing_scale", "erasing_ratio")),
            ("views.mixup or views.cutmix", self.mixup > 0 or self.cutmix > 0, ("mixing",)),
        ):
            for name in names:
                value = getattr(self, name)
                check(on or value == defaults[name], f"views.{name}", value, f"{switch} with it: alone it does nothing")

    def _check_range(self, name: str, least: float, most: float, expected: str) -> None:
        value = getattr(self, name)
        fits = len(value) == 2 and 0 < value[0] <= value[-1] <= most and value[0] >= least
        check(fits, f"views.{name}", value, expected)

    def unmixed(self) -> "ViewSettings":
        """The same views, with nothing erased and no pair mixed."""
        off = ("erasing", "erasing_scale", "erasing_ratio", "mixup", "cutmix", "mixing")
        return replace(self, **{field.name: field.default for field in fields(self) if field.name in off})

    @property
    def mixes(self) -> bool:
        """Whether a view may hold its partner's pixels, so that its label is no longer one class."""
        return self.mixing > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def together(self) -> int:
        """How many neighbours of a batch must be views of one process."""
        return 2 if self.mixes else 1

    def to_dict(self) -> dict[str, Any]:
        """By name, what has an effect: older runs, from before the rest was there, can be resumed."""
        used = set(_FIRST)
        used |= {"crop", "scale", "ratio"} if self.crop == "resized" else set()
        used |= {"erasing", "erasing_scale", "erasing_ratio"} if self.erasing else set()
        used |= {"mixup", "cutmix", "mixing"} if self.mixes else set()
        return {name: value for name, value in asdict(self).items() if name in used}


# Of MixUp 0.1 to 1 are usual. Below the least nearly all weights are 0 or 1; above the most nearly all are a half.
LEAST_ALPHA, MOST_ALPHA = 0.05, 20.0
_FIRST = ("convention", "brightness", "contrast", "saturation", "lighting", "flip", "impl")
