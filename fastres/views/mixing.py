"""MixUp and CutMix: two views, neighbours in a batch, become two mixtures of both; their labels are mixed alike.

Samples 2 k and 2 k + 1 of a batch are partners. An epoch's order is a permutation by chance, so neighbours in it are
partners by chance; they stay the same for every even batch size, and for every number of processes that cuts batches
between pairs (data/slices.py). The last of an odd batch has no partner and stays as it is. One draw a pair, keyed by
the id of its first sample, serves both: what one view keeps is what the other one gets.

MixUp (Zhang et al. 2018): w x + (1 - w) x', w of Beta(alpha, alpha). CutMix (Yun et al. 2019): a box of x' in x, whose
area is 1 - w before the view's edges cut it; the label's weight is the area that is left. Boxes as torchvision's.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from fastres.views.draw import MIXING, PATCH, WORD, Key

NONE, MIXUP, CUTMIX = range(3)
STEPS = 4096  # of the table of quantiles, so that a word's upper 24 bits are 12 of index and 12 between two entries


@dataclass(frozen=True)
class Mixtures:
    """What happens to each pair of a batch: arrays of length P = B // 2.

    kind   i64 [P]     NONE, MIXUP or CUTMIX
    own    f64 [P]     share of each view that stays its own, 1 where nothing is mixed
    patch  i64 [P, 4]  CutMix: top, left, bottom, right (exclusive) of the box in the view; else zeros
    """

    kind: np.ndarray
    own: np.ndarray
    patch: np.ndarray


def mixtures(ids: np.ndarray, key: Key, settings, crop: int) -> Mixtures:
    """Draw for the pairs of `ids`, i64 [B]; `crop`: pixels a side of the views."""
    first = ids[: len(ids) // 2 * 2 : 2]
    gate, which, weight, _ = key.words(first, MIXING)
    cuts = which < cuts_below(settings)
    kind = np.where(gate < int(settings.mixing * WORD), np.where(cuts, CUTMIX, MIXUP), NONE)
    own = np.where(cuts, weights(weight, settings.cutmix), weights(weight, settings.mixup))
    centre = np.stack(key.words(first, PATCH)[:2], axis=-1)
    centre = (centre * crop) >> 32
    half = (0.5 * np.sqrt(1 - own) * crop).astype(np.int64)[:, None]
    patch = np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, crop)], axis=-1)
    patch = patch * (kind == CUTMIX)[:, None]
    area = (patch[:, 2] - patch[:, 0]) * (patch[:, 3] - patch[:, 1])
    own = np.where(kind == CUTMIX, 1 - area / crop**2, np.where(kind == MIXUP, own, 1.0))
    return Mixtures(kind, own, patch)


def cuts_below(settings) -> int:
    """A pair is cut where its word is below this, and blended elsewhere."""
    if settings.mixup and settings.cutmix:
        return WORD // 2
    return WORD if settings.cutmix else 0


def weights(word: np.ndarray, alpha: float) -> np.ndarray:
    """Words as draws of Beta(alpha, alpha), f64; 1 for alpha 0."""
    if not alpha:
        return np.ones(len(word))
    table, at = quantiles(alpha), word >> 20
    return table[at] + (((word >> 8) & 0xFFF) / STEPS) * (table[at + 1] - table[at])


@lru_cache(maxsize=16)
def quantiles(alpha: float) -> np.ndarray:
    """Beta(alpha, alpha)'s quantiles at 0, 1 / STEPS, .. 1: f64 [STEPS + 1], read-only; by the trapezoid rule.

    Its density t^(a - 1) (1 - t)^(a - 1) is infinite at 0 for a < 1; there s = t^a is integrated over instead.
    """
    power = min(alpha, 1.0)
    s = np.linspace(0, 0.5**power, 200_001)
    t = s ** (1 / power)
    density = t ** (alpha - power) * (1 - t) ** (alpha - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    half = np.interp(np.arange(STEPS // 2 + 1) / STEPS, below / (2 * below[-1]), s) ** (1 / power)
    table = np.concatenate([half, 1 - half[-2::-1]])
    table.setflags(write=False)
    return table


def soft_labels(labels: torch.Tensor, own: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels i64 [B] of mixed views as probabilities f32 [B, classes]; own f32 [B]: each view's share of its own label,
    the rest is its partner's."""
    pairs, paired = len(labels) // 2 * 2, labels.clone()
    paired[:pairs] = labels[:pairs].view(-1, 2).flip(1).flatten()
    every = torch.arange(classes, device=labels.device)
    return own[:, None] * (labels[:, None] == every) + (1 - own)[:, None] * (paired[:, None] == every)
