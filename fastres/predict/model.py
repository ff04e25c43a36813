"""A network that answers images from Python, as the command does from a terminal; `fastres.load` makes one."""

import argparse
import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastres.data.convert import BadImage, colour
from fastres.data.decode import Recipe, decode_image
from fastres.evaluate import combining
from fastres.evaluate.answers import PROBABLE, words_of
from fastres.machine.arguments import path_of
from fastres.machine.command import told
from fastres.machine.device import Precision, settings_kept, use_fast_kernels
from fastres.machine.errors import DataError, UsageError
from fastres.model.card import Card
from fastres.predict.answering import Answering
from fastres.predict.named import images_of

Place = str | os.PathLike[str]
Picture = Image.Image | np.ndarray  # an array is u8 [H, W, 3] RGB or u8 [H, W] grey


@dataclass(frozen=True)
class Prediction:
    """An image's likeliest classes, five at most, the best first: their ids, their names as people read them, and
    their probabilities. `error` says why a file is no image; the rest is empty then. image: its path, or its number
    where it is a picture that was open already."""

    image: Path | int
    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None

    @property
    def name(self) -> str:
        """The likeliest class's; "" where there is none."""
        return self.names[0] if self.names else ""

    @property
    def probability(self) -> float:
        """The likeliest class's; 0 where there is none."""
        return self.probabilities[0] if self.probabilities else 0.0


class Model:
    """A network with all that must be known to use it: `network`, a torch module that maps views f32 [N, 3, crop, crop]
    to scores [N, classes]; `card`, its classes and how images become views; `precision`, what it computes in."""

    def __init__(self, network: nn.Module, card: Card, precision: Precision, source: object) -> None:
        self.network, self.card, self.precision, self.source = network.eval(), card, precision, source

    @property
    def classes(self) -> tuple[tuple[str, str], ...]:
        """(id, name) of each output."""
        return self.card.classes

    @told
    def predict(
        self,
        images: Place | Picture | Iterable[Place | Picture],
        *,
        views: str = "12-crop",
        combine: str = "expsum",
        background: str | None = None,
        gate: float | None = None,
    ) -> list[Prediction]:
        """What is in images, as `python -m fastres.predict` answers: files, folders with all that is in them, patterns;
        or pictures that are open already.

        gate        the centre alone where its margin is at least that, more views elsewhere
        background  behind transparent pixels; by default that of the images that the network was trained on

        UsageError where a path names no image, or the options are none.
        """
        for option, found, known in (("views", views, tuple(combining.METHODS)), ("combine", combine, PROBABLE)):
            if found not in known:
                raise UsageError(f"{option} {found!r}: expected one of {', '.join(known)}")
        try:
            recipe = Recipe(self.card.geometry.side, resize=True, background=colour(background or self.card.background))
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"background: {error}") from None
        if gate is not None and not 0 <= gate < float("inf"):
            raise UsageError(f"gate {gate!r}: expected a margin of scores from 0 up, such as 2.5")
        answering = Answering(self.network, self.card, self.precision, self.source, views, combine, gate)
        given = [images] if isinstance(images, str | os.PathLike | Image.Image | np.ndarray) else list(images)
        pictures = [image for image in given if isinstance(image, Image.Image | np.ndarray)]
        if pictures and len(pictures) < len(given):
            raise UsageError("images: found paths and pictures together, expected one of the two; call it twice")
        with contextlib.ExitStack() as stack:
            stack.enter_context(settings_kept())
            if self.precision.device.type == "cuda":
                if self.precision.device.index is not None:
                    stack.enter_context(torch.cuda.device(self.precision.device))  # where Triton launches
                use_fast_kernels()
            if pictures:
                return self._of_pictures(pictures, answering, recipe)
            paths = images_of([path_of(word) for word in given], lambda: b"") if given else []
            answers = answering.answers(paths, recipe)
            return [self._prediction(a.path, a.classes, a.probabilities, a.fault) for a in answers]

    def _of_pictures(self, pictures: Sequence[Picture], answering: Answering, recipe: Recipe) -> list[Prediction]:
        pixels = np.stack([_pixels(picture, number, recipe) for number, picture in enumerate(pictures)])
        probabilities, classes = answering.likeliest(pixels)
        rows = zip(classes.tolist(), probabilities.tolist(), strict=True)
        return [self._prediction(number, *row) for number, row in enumerate(rows)]

    def _prediction(
        self, image: Path | int, classes: Sequence[int], probabilities: Sequence[float], fault: str | None = None
    ) -> Prediction:
        words = words_of(self.classes)
        ids = tuple(self.classes[c][0] for c in classes)
        return Prediction(image, ids, tuple(words[c] for c in classes), tuple(probabilities), fault)


def _pixels(picture: Picture, number: int, recipe: Recipe) -> np.ndarray:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)) or not picture.size:
            raise UsageError(
                f"images: picture {number} is {picture.dtype} {list(picture.shape)}, expected uint8 [H, W, 3] or [H, W]"
            )
        picture = Image.fromarray(picture)
    try:
        return decode_image(picture, recipe)
    except BadImage as error:
        raise UsageError(f"images: picture {number} {error}; convert it to RGB") from None
    except OSError as error:  # its file is read now
        raise DataError(f"images: picture {number} cannot be decoded ({error}); leave it out") from None
