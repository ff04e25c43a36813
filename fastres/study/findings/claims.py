"""What the paper says about which system is better than which, and whether these runs say the same.

Each claim compares two figures, or one with a bound. It holds or not only where they differ by more than twice the
standard error of their difference; otherwise these runs leave it open. That two are equal holds where no difference
over EQUAL is left within twice that error, which takes more images than the small world's 1,200. For two crop methods
on the same model that error is of the difference image by image; for two systems it is that of two independent figures
(validation images and seeds), which is careful: they see the same images. A few seeds tell little of how much seeds
differ, so their part is as much wider as Student's distribution is. Numbers of epochs have that of the seeds; with one
seed it is not known. Nothing here is written by hand: the verdict is computed from the runs.

Of so many claims, each at two standard errors, one in twenty is decided by chance.
"""

import math
from dataclasses import dataclass

import numpy as np

from fastres.evaluate.combining import COMBINATIONS
from fastres.study.findings.measures import Spread, measure, of_seeds, spread, spread_of, uncertainty, widened
from fastres.study.findings.runs import Trained

EQUAL = 2.0  # points between systems that the paper calls equal; its own differ by at most 0.4
Figure = tuple[str, str] | float  # system and measure; or a bound in %
ROUNDING = 12**-0.5  # standard deviation of what is counted in whole epochs, where all seeds have the same
EPOCHS = "epochs to settle"  # the one measure that is not an error in %
BEST_OTHER = "best other combination"  # of a crop method, named behind it
CHOSEN = 2.5  # standard errors that the best of four rivals, found on the same images, must be ahead by


@dataclass(frozen=True)
class Claim:
    """`lower` is below `higher`; or, where `equal`, the two are the same. `where`: what it is read from.

    A bound says something of Tiny ImageNet alone: on other data it is not measured. A system all of whose runs diverge
    in their last stage stays above a bound that it had not come below before.
    """

    where: str
    text: str
    lower: Figure
    higher: Figure
    equal: bool = False


@dataclass(frozen=True)
class Verdict:
    """What these runs say of a claim: agrees, disagrees, open, or not measured."""

    claim: Claim
    word: str
    lower: Spread | None = None
    higher: Spread | None = None
    error: float | None = None  # standard error of their difference

    @property
    def figures(self) -> str:
        if self.lower is None or self.higher is None:
            return "diverged" if self.word == "agrees" else ""
        apart, unit = self.higher.mean - self.lower.mean, "epochs" if self.claim.higher[1] == EPOCHS else "%"
        within = "of unknown error" if self.error is None else f"± {self.error:.2f}"
        below = f"a bound of {self.lower.mean:g}" if isinstance(self.claim.lower, float) else self.lower
        return f"{below} against {self.higher} {unit}, difference {apart:+.2f} {within}"

    def plain(self) -> dict:
        return {"where": self.claim.where, "claim": self.claim.text, "verdict": self.word, "figures": self.figures}


TOP1, TOP5, CENTRE = "12-crop top1", "12-crop top5", "centre top1"
CLAIMS = (
    Claim("figure 5", "naive fine-tuning ends where the fixed feature extractor does",
          ("naive-fc", TOP1), ("feature-extractor", TOP1), equal=True),
    Claim("figure 5", "the feature extractor converges in fewer epochs than naive fine-tuning",
          ("feature-extractor", EPOCHS), ("naive-fc", EPOCHS)),
    Claim("figure 5", "the feature extractor of 50 layers converges in fewer epochs than naive fine-tuning of 18",
          ("feature-extractor-50", EPOCHS), ("naive-fc", EPOCHS)),
    Claim("figure 5", "as feature extractors 50 layers and 18 are equally good",
          ("feature-extractor-50", TOP1), ("feature-extractor", TOP1), equal=True),
    Claim("table 2", "staged fine-tuning is better than naive", ("initialized-fc", TOP1), ("naive-fc", TOP1)),
    Claim("table 2", "staged fine-tuning is better than a fixed feature extractor",
          ("initialized-fc", TOP1), ("feature-extractor", TOP1)),
    Claim("table 2", "the final model is better than the one before size adaptation",
          ("paper", TOP1), ("initialized-fc", TOP1)),
    Claim("table 2", "the final model's top-5 error is lower too", ("paper", TOP5), ("initialized-fc", TOP5)),
    Claim("figure 6", "with scaled filters and everything at once, the error first rises",
          ("conv1-naive", "before-last-stage centre top1"), ("conv1-naive", "first-epoch centre top1")),
    Claim("figure 6", "with scaled filters and everything at once, the error does not quite regain what it was",
          ("initialized-fc", CENTRE), ("conv1-naive", CENTRE)),
    Claim("figure 6", "a first layer trained alone before the rest is better than everything at once",
          ("paper", CENTRE), ("conv1-naive", CENTRE)),
    Claim("figure 6", "a first layer trained alone before the rest is better than the model before size adaptation",
          ("paper", CENTRE), ("initialized-fc", CENTRE)),
    Claim("section 5.2", "a blank first layer is worse than scaled filters",
          ("conv1-naive", CENTRE), ("conv1-blank", CENTRE)),
    Claim("section 5.2", "with a blank first layer the error does not return to below 50 %",
          50.0, ("conv1-blank", "lowest centre top1")),
    Claim("table 1", "10-crop is better than the centre crop",
          ("initialized-fc", "10-crop top1"), ("initialized-fc", CENTRE)),
    Claim("table 1", "12-crop is better than 10-crop",
          ("initialized-fc", TOP1), ("initialized-fc", "10-crop top1")),
    Claim("table 1", "12-crop is better than the full image",
          ("initialized-fc", TOP1), ("initialized-fc", "full top1")),
    Claim("table 1", "12-crop is better than the centre crop",
          ("initialized-fc", TOP1), ("initialized-fc", CENTRE)),
    Claim("table 1", "12-crop has a lower top-5 error than the full image, the next best",
          ("initialized-fc", TOP5), ("initialized-fc", "full top5")),
    Claim("table 1", "the full image has a lower top-5 error than the centre crop",
          ("initialized-fc", "full top5"), ("initialized-fc", "centre top5")),
    Claim("section 5.3", "summing e^score is the best way to combine the twelve crops",
          ("initialized-fc", TOP1), ("initialized-fc", f"{BEST_OTHER} of 12-crop")),
    Claim("section 5.3", "summing e^score is the best way to combine the ten crops",
          ("initialized-fc", "10-crop top1"), ("initialized-fc", f"{BEST_OTHER} of 10-crop")),
    Claim("torch7", "with Torch7's defaults naive fine-tuning ends where the fixed feature extractor does",
          ("naive-fc-torch7", TOP1), ("feature-extractor-torch7", TOP1), equal=True),
    Claim("torch7", "with Torch7's defaults staged fine-tuning is better than naive",
          ("initialized-fc-torch7", TOP1), ("naive-fc-torch7", TOP1)),
    Claim("torch7", "with Torch7's defaults the final model is better than the one before size adaptation",
          ("paper-torch7", TOP1), ("initialized-fc-torch7", TOP1)),
    Claim("torch7", "with Torch7's defaults everything at once does not quite regain what it was",
          ("initialized-fc-torch7", CENTRE), ("conv1-naive-torch7", CENTRE)),
    Claim("torch7", "with Torch7's defaults a first layer trained alone before the rest is better than all at once",
          ("paper-torch7", CENTRE), ("conv1-naive-torch7", CENTRE)),
)  # fmt: skip


def judge(systems: dict[str, list[Trained]], wrong: tuple[str, dict[str, np.ndarray]] | None = None) -> list[Verdict]:
    """Every claim against runs by system. `wrong`: a system, and its share of errors on each image by measure."""
    return [_judge(claim, systems, wrong or ("", {})) for claim in CLAIMS]


def _judge(claim: Claim, systems: dict[str, list[Trained]], wrong: tuple[str, dict[str, np.ndarray]]) -> Verdict:
    (a, low, lower), (b, high, higher) = _figure(claim.lower, systems), _figure(claim.higher, systems)
    bound = isinstance(claim.lower, float)
    if bound and not all(run.real for run in b):
        return Verdict(claim, "not measured")
    unbroken = bound and (higher is None or higher.mean >= claim.lower)
    if unbroken and b and all(run.status == "diverged" and run.in_last_stage for run in b):
        return Verdict(claim, "agrees", lower)
    if lower is None or higher is None:
        return Verdict(claim, "not measured", lower, higher)
    error = _error_of(claim, (a, low, lower), (b, high, higher), wrong)
    if error is None:
        return Verdict(claim, "open", lower, higher)
    word = _word(claim, higher.mean - lower.mean, error)
    if bound and word == "agrees" and any(run.status not in ("done", "diverged") for run in b):
        word = "open"  # what is to come may break it
    return Verdict(claim, word, lower, higher, error)


def _error_of(claim: Claim, one: tuple, other: tuple, wrong: tuple[str, dict[str, np.ndarray]]) -> float | None:
    """Standard error of the difference; None where these runs cannot tell it."""
    (a, low, lower), (b, high, higher), (system, by_image) = one, other, wrong
    if high == EPOCHS:
        if min(lower.n, higher.n) < 2:
            return None
        counted = (max(of_seeds(found), ROUNDING / math.sqrt(found.n)) * widened(found.n) for found in (lower, higher))
        return math.hypot(*counted)
    if low and {claim.lower[0], claim.higher[0]} == {system} and low in by_image and high in by_image:
        apart = 100.0 * (by_image[high] - by_image[low])
        pairs = [(measure(run, high), measure(run, low)) for run in a]
        seeds = spread_of([x - y for x, y in pairs if x is not None and y is not None])
        return math.hypot(apart.std() / math.sqrt(len(apart)), of_seeds(seeds) * widened(seeds.n) if seeds else 0.0)
    known = isinstance(claim.lower, float)
    errors = (0.0 if known else uncertainty(a, lower, wide=True), uncertainty(b, higher, wide=True))
    return None if None in errors else math.hypot(*errors)


def _word(claim: Claim, difference: float, error: float) -> str:
    """Equal means nearer than EQUAL: for certain, or for certain not, or it is open."""
    if claim.equal:
        if abs(difference) > EQUAL + 2 * error:
            return "disagrees"
        return "agrees" if abs(difference) + 2 * error <= EQUAL else "open"
    least = CHOSEN if claim.higher[1].startswith(BEST_OTHER) else 2
    return "agrees" if difference > 2 * error else "disagrees" if difference < -least * error else "open"


def _figure(figure: Figure, systems: dict[str, list[Trained]]) -> tuple[list[Trained], str, Spread | None]:
    """The system's runs, the measure, and what they have of it; BEST_OTHER is looked up."""
    if isinstance(figure, float):
        return [], "", Spread(figure, None, 1)
    system, name = figure
    runs = systems.get(system, [])
    if name.startswith(BEST_OTHER):
        top1 = f"{name.removeprefix(BEST_OTHER).split()[-1]} top1"
        others = {f"{top1} {how}": spread(runs, f"{top1} {how}") for how in COMBINATIONS if how != "expsum"}
        name = min((other for other in others if others[other]), key=lambda other: others[other].mean, default=top1)
    return runs, name, spread(runs, name)
