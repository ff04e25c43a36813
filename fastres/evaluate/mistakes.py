"""What a network gets wrong on a labelled split: by class, which class for which, and on which images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fastres.evaluate import combining
from fastres.evaluate.answers import likeliest, words_of
from fastres.evaluate.confusions import counted, largest
from fastres.track.error_table import standard_error

METHOD = "12-crop"
WORST, LISTED = 12, 100  # images shown; confusions in a summary (a file has all of them)


@dataclass(frozen=True)
class Mistakes:
    """The answers of METHOD to N images of C classes, and what is wrong with them.

    how            the combination of the crops' scores
    words          C names to show, in the order of the labels; `ids` are the data's
    files          N paths, relative to the data set
    labels         i64 [N]
    classes        i64 [N, k], the likeliest first; probabilities f64 [N, k]
    counts         i64 [C, C], see confusions.counted
    worst          the images of the surest wrong answers, the surest first, WORST at most
    by_method      i64 [methods, len(worst)]: what each of combining.METHODS answers to those
    """

    how: str
    ids: tuple[str, ...]
    words: tuple[str, ...]
    files: Sequence[str]
    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    counts: np.ndarray
    worst: list[int]
    by_method: np.ndarray

    def by_class(self) -> list[dict]:
        """A class a row, in the order of the labels; top1_err and standard_error in %, None where it has no image."""
        rows = []
        for label, images in enumerate(self.counts.sum(1).tolist()):
            wrong = images - int(self.counts[label, label])
            error = 100.0 * wrong / images if images else None
            spread = standard_error(error, images) if images else None
            known = {"class": self.ids[label], "name": self.words[label], "images": images, "wrong": wrong}
            rows.append({**known, "top1_err": error, "standard_error": spread})
        return rows

    def confusions(self) -> list[dict]:
        """The commonest first: so many `images` of `truth` got `answer`, which is `share_pct` of the truth's images."""
        return [
            {"truth": self.words[truth], "answer": self.words[answer], "images": images, "share_pct": share}
            for truth, answer, images, share in largest(self.counts)
        ]

    def worst_images(self) -> list[dict]:
        """Of each of `worst` its file, truth, answer, the answer's probability, and every crop method's answer."""
        return [
            {
                "image": self.files[image],
                "truth": self.words[self.labels[image]],
                "answer": self.words[self.classes[image, 0]],
                "probability": float(self.probabilities[image, 0]),
                "by_method": {
                    method: self.words[c] for method, c in zip(combining.METHODS, self.by_method[:, place], strict=True)
                },
            }
            for place, image in enumerate(self.worst)
        ]

    def plain(self) -> dict:
        """For JSON: everything but the single images, and of confusions the commonest LISTED."""
        facts = {"count": len(self.labels), "method": METHOD, "combine": self.how}
        lists = {"classes": self.by_class(), "confusions": self.confusions()[:LISTED], "worst": self.worst_images()}
        return {**facts, **lists}


def find_mistakes(
    scores: torch.Tensor, labels: torch.Tensor, classes: Sequence[tuple[str, str]], files: Sequence[str], how: str
) -> Mistakes:
    """From scores f32 [N, 12, C] and labels i64 [N] on one device, which counts, and the classes as (id, name).

    `how`: one of combining.COMBINATIONS; of "max" and "vote" the probabilities are only an order.
    """
    probabilities, order = likeliest(combining.combine(scores[:, combining.METHODS[METHOD]], how))
    answers = order[:, 0]
    wrong = (answers != labels).nonzero()[:, 0]
    surest = probabilities[wrong, 0].sort(descending=True, stable=True).indices[:WORST]
    worst = wrong[surest]
    by_method = [combining.combine(scores[worst][:, views], how).argmax(1) for views in combining.METHODS.values()]
    return Mistakes(
        how=how,
        ids=tuple(label for label, _ in classes),
        words=tuple(words_of(classes)),
        files=files,
        labels=labels.cpu().numpy(),
        classes=order.cpu().numpy(),
        probabilities=probabilities.cpu().numpy(),
        counts=counted(labels.cpu().numpy(), answers.cpu().numpy(), len(classes)),
        worst=worst.tolist(),
        by_method=torch.stack(by_method).cpu().numpy(),
    )
