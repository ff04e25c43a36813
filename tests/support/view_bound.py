"""How far a view computed in float32 may be from the definition, reference.py's float64.

With u = 2^-24, what a float32 operation may round by, and g(n) = n u / (1 - n u), a sum in which every term goes
through n roundings differs from the exact one by at most g(n) times the sum of the terms' sizes (Higham, Accuracy and
Stability of Numerical Algorithms, lemma 3.1). A view is such a sum: y = sum over s, t of R[s] K[t] (C x[s, t] + b).

Pixels. A term goes through the roundings of C (1), its product (1) and three additions; then, each way, through those
of the weight (1), its product (1) and T - 1 additions, for rows of R and K with T numbers that are not zero (adding
zeros is exact). That is 2 T + 7; the GPU kernel, which adds b last, has one more addition of it and none elsewhere:
g(2 T + 8) (|R| (|C| x + |b|) |K|^T). So it grows with the sums of |R| and |K| (1 for a copy, 1.25 each way between two
samples of a bicubic, more where an edge is extrapolated), not with the side.

Mean colour. Contrast blends with the mean of the view, m = sum over s, t of p[s] q[t] x[s, t], where p and q are the
means of R's and K's rows: S additions each way and the roundings of the weights and their products, so
dm <= g(2 S + 4) (|p| x |q|). This grows with the side; b takes it up as |db/dm| dm, the same for a whole view. On
images of one colour all additions of a sum round the same way, and the error is then a good part of the bound.

Boxes. Weights of a resized crop's taps are worked out in float64: no more roundings. What is erased is 0 exactly. A
mixture has the errors of both views, by their weights, and four roundings of its own.

Chance. The GPU draws lighting in float32: 2 pi v, rounded, is the angle of a radius of up to 5.8, which itself has a
handful of roundings: at most 70 u standard deviations.
"""

import numpy as np
import torch

from fastres.views import TrainPlan, colour
from fastres.views.mixing import CUTMIX
from fastres.views.resample import box_matrices, matrix

U = 2.0**-24


def grown(roundings: int) -> float:
    """g(n) of the module's docstring."""
    return roundings * U / (1 - roundings * U)


def bound(images: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor, plan) -> torch.Tensor:
    """What views.apply of these arguments in float32 may differ from the definition by: f64 [n, C, H, H]."""
    pixels = images[rows].cpu().double().numpy()
    if isinstance(plan, TrainPlan):
        made = _of_training(pixels, ids.cpu().numpy(), plan)
    else:
        made = [_of_view(x, *_matrices(how, plan), *colour.plain(), 0.0) for x in pixels for how in plan.views]
    padded = np.pad(np.stack(made), ((0, 0),) * 3 + ((0, plan.channels - 3),))  # a fourth channel is exact
    return torch.from_numpy(padded).permute(0, 3, 1, 2)


def _of_training(pixels: np.ndarray, ids: np.ndarray, plan: TrainPlan) -> list[np.ndarray]:
    draws, erased, sizes, made = plan.draws(ids), plan.erased(ids), [], []
    chance = 70 * U * plan.settings.lighting * np.abs(colour.EIGENVECTORS) @ colour.EIGENVALUES / colour.STD
    for i, x in enumerate(pixels):
        r, k = _training_matrices(i, ids, draws, plan)
        mean, size = _weighted(r.mean(0), x, k.mean(0)), _weighted(abs(r.mean(0)), x, abs(k.mean(0)))
        # the colour matrix for the mean itself, and for it with one unit more of red, green or blue
        means = mean + np.concatenate([np.zeros((1, 3)), np.eye(3)])
        drawn = (array[i : i + 1].repeat(4, 0) for array in (draws.factors, draws.order, draws.lighting))
        c, b = colour.compose(means, *drawn)
        shift = np.abs(b[1:] - b[0]).T @ (grown(2 * plan.geometry.side + 4) * size) + chance
        made.append(_of_view(x, r, k, c[0], b[0], shift))
        sizes.append(np.abs(np.einsum("hs,stc,wt->hwc", r, x @ c[0].T + b[0], k, optimize=True)))
        for array in (made[i], sizes[i]):
            array[erased[i, 0] : erased[i, 2], erased[i, 1] : erased[i, 3]] = 0
    return made if plan.mixtures(ids) is None else _mixed(made, sizes, plan.mixtures(ids))


def _training_matrices(i: int, ids: np.ndarray, draws, plan: TrainPlan) -> tuple[np.ndarray, np.ndarray]:
    side, crop, boxes = plan.geometry.side, plan.geometry.crop, plan.boxes(ids)
    if boxes is None:
        resize = matrix(side, plan.geometry.resized, plan.convention)
        r, k = resize[draws.top[i] :][:crop], resize[draws.left[i] :][:crop]
    else:
        r, k = (box_matrices(side, crop, boxes[i : i + 1, at], boxes[i : i + 1, at + 2])[0] for at in (0, 1))
    return r, k[::-1] if draws.flip[i] else k


def _mixed(made: list[np.ndarray], sizes: list[np.ndarray], mixtures) -> list[np.ndarray]:
    """The errors of both views by their weights, and four roundings of the mixture's own."""
    out = list(made)
    for pair, (kind, own, patch) in enumerate(zip(mixtures.kind, mixtures.own, mixtures.patch)):
        for mine, other in ((2 * pair, 2 * pair + 1), (2 * pair + 1, 2 * pair)):
            if kind == CUTMIX:
                top, left, bottom, right = patch
                out[mine] = made[mine].copy()
                out[mine][top:bottom, left:right] = made[other][top:bottom, left:right]
            elif own < 1:
                size = own * (sizes[mine] + made[mine]) + (1 - own) * (sizes[other] + made[other])
                out[mine] = own * made[mine] + (1 - own) * made[other] + grown(4) * size
    return out


def _of_view(x, r, k, c, b, shift) -> np.ndarray:
    """f64 [H, H, 3] from pixels [S, S, 3], R and K [H, S], C | b, and what b may be off by, [3]."""
    taps, r, k = max(int((part != 0).sum(1).max()) for part in (r, k)), abs(r), abs(k)
    size = np.einsum("hs,stc,wt->hwc", r, x @ abs(c).T + abs(b), k, optimize=True)
    sums = r.sum(1)[:, None, None] * k.sum(1)[None, :, None]
    return grown(2 * taps + 8) * size + (1 + grown(2 * taps + 8)) * sums * shift


def _matrices(how, plan) -> tuple[np.ndarray, np.ndarray]:
    side, size, crop = plan.geometry.side, plan.geometry.resized, plan.geometry.crop
    if how.whole:
        r = k = matrix(side, crop, plan.convention)
    else:
        top, left = how.offset(plan.geometry)
        resize = matrix(side, size, plan.convention)
        r, k = resize[top : top + crop], resize[left : left + crop]
    return r, k[::-1] if how.mirrored else k


def _weighted(p: np.ndarray, x: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.einsum("s,stc,t->c", p, x, q, optimize=True)
