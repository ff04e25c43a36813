"""Figure 7: validation images whose class changes with the crop method, with the four answers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastres import views
from fastres.data.batch import Split
from fastres.evaluate import combining
from fastres.evaluate.answers import words_of
from fastres.evaluate.scores import score
from fastres.machine.device import Precision, choose_precision
from fastres.study.findings.measures import ranked
from fastres.study.findings.networks import loaded, opened, scorable
from fastres.study.findings.runs import Trained
from fastres.study.findings.tables import TABLE_1_SYSTEM, Table
from fastres.track.answer_pictures import Panel, answer_lines, answer_sheet

SHOWN = 8


@dataclass(frozen=True)
class Answers:
    """What the model of Table 1 answers on the validation split.

    classes  i64 [4, N] of its first seed, a row a method in the order of combining.METHODS, e^score summed
    labels   i64 [N]
    names    of the classes
    chosen   ids of the images to show, images: u8 [n, S, S, 3]
    wrong    f64 [N] by measure ("12-crop top1", "12-crop top1 vote"): the share of seeds that err on each image
    """

    system: str
    classes: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    chosen: list[int]
    images: np.ndarray
    wrong: dict[str, np.ndarray]


def answers(systems: dict[str, list[Trained]], data: Path | None, device: str, precision: str) -> Answers | None:
    """Score the validation split with every seed of Table 1's system (else the final one; on one's own data the best);
    None where none of them is done.

    `data`: the packed folder; None: the runs' own. DataError where it is not the data set of the runs.
    """
    own = any(run.own for runs in systems.values() for run in runs)
    names = ranked(systems) if own else (TABLE_1_SYSTEM, "paper")
    runs = next((done for name in names if (done := scorable(systems.get(name, [])))), None)
    if runs is None:
        return None
    split, manifest = opened(runs, data, device)
    labels = split.labels.cpu()
    scores = [_scores(run, split, manifest.side, choose_precision(precision, split.device)) for run in runs]
    picked = [combining.combine(scores[0][:, of], "expsum").argmax(1) for of in combining.METHODS.values()]
    classes = torch.stack(picked).numpy()
    chosen = susceptible(classes, labels.numpy())[:SHOWN]
    wrong: dict[str, np.ndarray] = {}
    for one in scores:
        for name, errs in _wrong(one, labels).items():
            wrong[name] = wrong.get(name, 0.0) + errs / len(scores)
    images = split.pixels(torch.tensor(chosen, dtype=torch.long, device=split.device)).cpu().numpy()
    names = tuple(words_of([(info.wnid, info.name) for info in manifest.classes]))
    return Answers(runs[0].name, classes, labels.numpy(), names, chosen, images, wrong)


def _scores(run: Trained, split: Split, side: int, precision: Precision) -> torch.Tensor:
    """Scores of the twelve views, f32 [N, 12, C]."""
    network, geometry, settings = loaded(run, split, side)
    plan = views.twelve_views(geometry, settings, precision.dtype)
    return score(network, split, plan, precision, label=f"{run.name}, twelve crops")


def _wrong(scores: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    found = {}
    for method, of in combining.METHODS.items():
        for how in combining.COMBINATIONS:
            rank = combining.rank_of_truth(combining.combine(scores[:, of], how), labels).numpy()
            for k in (1, 5):
                found[f"{method} top{k}" + ("" if how == "expsum" else f" {how}")] = (rank >= k).astype(float)
    return found


def susceptible(classes: np.ndarray, labels: np.ndarray) -> list[int]:
    """Ids of the images whose class changes with the method, those of different kinds taking turns.

    classes i64 [methods, N], labels i64 [N]. A kind is which methods are right; the commonest kind comes first, those
    that no method gets right last. Within a kind ids rise.
    """
    changing = np.flatnonzero((classes != classes[0]).any(0))
    right = classes == labels
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for image in changing:
        kinds.setdefault(tuple(right[:, image].tolist()), []).append(int(image))
    queues = sorted(kinds.items(), key=lambda item: (not any(item[0]), -len(item[1]), item[0]))
    longest = max(map(len, kinds.values()), default=0)
    return [ids[turn] for turn in range(longest) for _, ids in queues if turn < len(ids)]


def kinds_table(found: Answers) -> Table:
    """How many images each kind of disagreement has."""
    right, methods = found.classes == found.labels, tuple(combining.METHODS)
    changing = (found.classes != found.classes[0]).any(0)
    kinds, counts = np.unique(right[:, changing].T, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rows = [(*("right" if hit else "wrong" for hit in kinds[i]), int(counts[i])) for i in order]
    return Table(
        f"Figure 7: {int(changing.sum())} of {len(found.labels)} images change class with the crop method",
        (*methods, "images"),
        rows,
        f"Model: {found.system}; crops combined by summing e^score.",
    )


def draw_answers(found: Answers, path: Path) -> Path | None:
    """The chosen images with their true class and the four answers; None where no image changes class."""
    if not found.chosen:
        return None
    panels = []
    for place, image in enumerate(found.chosen):
        names = [found.names[answer] for answer in found.classes[:, image]]
        truth = found.names[found.labels[image]]
        answers = dict(zip(combining.METHODS, names, strict=True))
        panels.append(Panel(found.images[place], truth, answer_lines(answers, truth)))
    return answer_sheet(panels, path)
