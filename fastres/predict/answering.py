"""From a model and files to each file's likeliest classes, with the views and the speed of evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastres import views
from fastres.data.decode import Recipe
from fastres.evaluate import combining
from fastres.evaluate.answers import likeliest
from fastres.evaluate.gate import gated_ranking
from fastres.evaluate.scores import VIEWS_PER_PASS, check_scores, folded, score
from fastres.machine.console import Progress
from fastres.machine.device import Precision, choose_precision
from fastres.machine.errors import UsageError
from fastres.model.card import Card, card_of
from fastres.model.conditions import NOTHING, Given, completed, tell_assumed
from fastres.model.network import describe
from fastres.model.target import read_model
from fastres.model.weights import network_from
from fastres.predict.decoding import Images, decoded

AT_ONCE = 256  # images decoded together, and a whole number of passes through the network


@dataclass(frozen=True)
class Answer:
    """A file's likeliest classes, indices i64 [k] with their probabilities f64 [k]; or why it is no image."""

    path: Path
    classes: Sequence[int] = ()
    probabilities: Sequence[float] = ()
    fault: str | None = None


def open_model(
    target: Path, precision: str, device: torch.device, given: Given = NOTHING
) -> tuple[nn.Module, Card, Precision]:
    """The network on the device, what is known of it, and what it computes in. ONNX files run on the CPU in fp32."""
    if target.suffix == ".onnx":
        from fastres.model.onnx_file import read_onnx

        if precision not in ("auto", "fp32"):
            raise UsageError(f"--precision {precision}: an ONNX model computes in fp32; leave --precision away")
        return *read_onnx(target, given), choose_precision("fp32", torch.device("cpu"))
    model = read_model(target)
    network = network_from(model.state, model.source).to(device, memory_format=torch.channels_last)
    metadata = completed(model.metadata, given, model.source)
    card = card_of(metadata, describe(model.state), model.source)
    tell_assumed(card, model.source)
    return network, card, choose_precision(precision, device)


class Answering:
    """A model that answers files."""

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        precision: Precision,
        source: object,
        method: str,
        how: str,
        margin: float | None = None,
    ):
        """`method` of combining.METHODS says which views, `how` combines their scores; `source` is for messages.

        margin  the centre alone where its margin is at least that, more views elsewhere (evaluate/gate.py); None: all
                for every image. UsageError with another method.
        """
        if margin is not None and method != "12-crop":
            raise UsageError(f"--gate with --views {method}: chooses who gets the twelve crops; leave one of them away")
        chosen = tuple(views.TWELVE_VIEWS[view] for view in combining.METHODS[method])
        self.plan = views.TestPlan(geometry=card.geometry, settings=card.settings, views=chosen, dtype=precision.dtype)
        self.network, self.card, self.precision = folded(network, precision), card, precision
        self.source, self.how, self.margin = source, how, margin

    def scores(self, pixels: np.ndarray, progress: Progress | None = None) -> torch.Tensor:
        """Scores of the views of u8 [N, S, S, 3]: f32 [N, V, C] on the CPU."""
        images = Images(pixels, self.precision.device)
        return score(self.network, images, self.plan, self.precision, label="prediction", progress=progress)

    def likeliest(self, pixels: np.ndarray, progress: Progress | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and classes of u8 [N, S, S, 3], [N, k] each. DataError where the scores are not finite."""
        if self.margin is None:
            scores = self.scores(pixels, progress)
            check_scores(scores, self.source, self.precision)
            return likeliest(combining.combine(scores, self.how))
        given = self.network, Images(pixels, self.precision.device), self.plan, self.precision
        ranking, _ = gated_ranking(*given, self.margin, self.how, progress=progress)
        check_scores(ranking, self.source, self.precision)
        return likeliest(ranking)

    def answers(self, paths: Sequence[Path], recipe: Recipe, progress: Progress | None = None) -> Iterator[Answer]:
        """Every file's, in order. DataError where the scores are not finite."""
        a_pass = max(1, VIEWS_PER_PASS[self.precision.device.type] // len(self.plan.views))
        for part in decoded(paths, recipe, a_pass * -(-AT_ONCE // a_pass)):
            best: Iterator = iter(())
            if len(part.pixels):
                probabilities, classes = self.likeliest(part.pixels, progress)
                best = zip(classes.tolist(), probabilities.tolist(), strict=True)
            for path, fault in zip(part.paths, part.faults, strict=True):
                yield Answer(path, *next(best)) if fault is None else Answer(path, fault=fault)
