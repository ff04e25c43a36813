"""What must be known beside a network's weights to use them: its classes, and how an image becomes its input."""

import json
from dataclasses import dataclass, field

from fastres.machine.errors import DataError
from fastres.model.network import Architecture
from fastres.schedules.types import ViewSettings
from fastres.views import colour
from fastres.views.geometry import Geometry

NORMALISATION = {"mean": colour.MEAN.tolist(), "std": colour.STD.tolist()}  # of RGB in 0..1
# A 7x7 stem that nobody said more about is an ImageNet network: it sees images of 256 pixels, not enlarged ones.
BARE_SIDES = {"7x7": 256, "3x3": 64}
IMAGENET_CLASSES = 1000
WHITE_TEXT = "#ffffff"


@dataclass(frozen=True, kw_only=True)
class Card:
    """classes: (id, name) by output. metadata: all that stood beside the weights, these facts included. assumed: which
    of these facts nobody said, in words. background: what shows through transparent pixels, as #rrggbb."""

    classes: tuple[tuple[str, str], ...]
    geometry: Geometry
    convention: str
    background: str = WHITE_TEXT
    metadata: dict = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    @property
    def settings(self) -> ViewSettings:
        return ViewSettings(convention=self.convention)

    def preprocessing(self) -> str:
        """One sentence for whoever has nothing but the file."""
        side, resized, crop = self.geometry.side, self.geometry.resized, self.geometry.crop
        change = "enlarge" if resized > side else "shrink"
        enlarge = f", {change} it to {resized} by bicubic interpolation ({self.convention})" if resized != side else ""
        window = f", cut out a {crop} x {crop} window (the centre one, or several whose scores are combined)"
        mean, std = NORMALISATION["mean"], NORMALISATION["std"]
        return (
            f"RGB, transparent pixels on {self.background}; bring the centre square to {side} x {side} pixels (area "
            "mean to shrink, bicubic to enlarge)"
            f"{enlarge}{'' if self.geometry.whole else window}; "
            f"(pixel / 255 - mean) / std with mean {mean} and std {std}; float32 [batch, 3, {crop}, {crop}]"
        )

    def to_metadata(self) -> dict:
        """What goes beside the weights: what is known of them, with this card's facts."""
        facts = {
            "classes": [list(pair) for pair in self.classes],
            "side": self.geometry.side,
            "upscale": self.geometry.upscale,
            "convention": self.convention,
            "normalisation": NORMALISATION,
            "background": self.background,
            **({"whole": True} if self.geometry.whole else {}),
        }
        return {**self.metadata, **facts}


def card_of(metadata: dict, architecture: Architecture, source: object, side: int | None = None) -> Card:
    """From a file's checked metadata; what it does not say is filled in. DataError where it contradicts the network
    or asks for another normalisation than the views have.

    `side`: of the images it is to be used on, where they are all of one; assumed for weights that say nothing.
    """
    if metadata.get("normalisation", NORMALISATION) != NORMALISATION:
        raise DataError(
            f"weights {source}: normalised by {json.dumps(metadata['normalisation'])}, expected "
            f"{json.dumps(NORMALISATION)}, which every view here has; use weights trained with that"
        )
    count = architecture.classes
    classes = tuple((wnid, name) for wnid, name in metadata.get("classes", ())) or _bare_classes(count)
    if len(classes) != count:
        raise DataError(
            f"weights {source}: told {len(classes)} classes, expected the network's {count}; check --classes where it "
            "is given, else get the file again"
        )
    bare = "side" not in metadata and side is None
    upscale = metadata.get("upscale", 1 if bare else architecture.upscale)
    facts = {
        "side": side or BARE_SIDES[architecture.stem],
        "upscale": upscale,
        "convention": ViewSettings().convention if upscale >= 1 else "half-pixel",
    }
    assumed = [f"{name} {value}" for name, value in facts.items() if name not in metadata]
    if "classes" not in metadata and "class_digest" not in metadata:
        imagenet = "ImageNet's classes" if count == IMAGENET_CLASSES else "classes without names"
        assumed.append(imagenet if side is None else "classes in the order of the data's")
    facts = {name: metadata.get(name, value) for name, value in facts.items()}
    if upscale < 1 and facts["convention"] != "half-pixel":
        raise DataError(
            f"weights {source}: made to see images shrunk to {upscale:g} by {facts['convention']}, which skips pixels; "
            "expected half-pixel, as --convention says where the file says nothing"
        )
    return Card(
        classes=classes,
        geometry=Geometry(facts["side"], facts["upscale"], metadata.get("whole", False)),
        convention=facts["convention"],
        background=metadata.get("background", WHITE_TEXT),
        metadata=metadata,
        assumed=tuple(assumed),
    )


def _bare_classes(count: int) -> tuple[tuple[str, str], ...]:
    """Of weights that name none: 1,000 outputs are ImageNet's, in the order that torchvision, timm and fb.resnet.torch
    share; it has their names."""
    from torchvision.models import ResNet18_Weights  # after model/network.py, which says how it loads

    imagenet = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    names = imagenet if count == IMAGENET_CLASSES else [f"class {i}" for i in range(count)]
    return tuple((str(i), name) for i, name in enumerate(names))
