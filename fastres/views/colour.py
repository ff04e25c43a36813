"""Brightness, contrast, saturation, PCA lighting and normalisation as ONE 3x4 matrix per image (paper, section 4.2).

Each step is affine in RGB and nothing is clamped in between, so the steps compose. Constants and order are those of
fb.resnet.torch, the code the paper trained with: jitter steps in random order, contrast blends with the mean gray of
the view as it is at that moment, then lighting, then normalisation.
"""

from itertools import permutations

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])
GRAY = np.array([0.299, 0.587, 0.114])
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(  # columns are the principal directions of ImageNet's RGB values, in [0, 1] units
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
BRIGHTNESS, CONTRAST, SATURATION = range(3)
JITTER_ORDERS = np.array(list(permutations((BRIGHTNESS, CONTRAST, SATURATION))))


def plain() -> tuple[np.ndarray, np.ndarray]:
    """Normalisation alone, from bytes: C f64 [3, 3], b f64 [3], so that x = C rgb + b for rgb in 0 .. 255."""
    return np.diag(1.0 / (255.0 * STD)), -MEAN / STD


def compose(mean_rgb: np.ndarray, factors: np.ndarray, order: np.ndarray, lighting: np.ndarray) -> tuple:
    """The colour matrices of a batch of training views.

    mean_rgb  f64 [B, 3]  mean colour of each view before any colour step, in 0 .. 255
    factors   f64 [B, 3]  brightness, contrast, saturation factors
    order     i64 [B]     row of JITTER_ORDERS
    lighting  f64 [B, 3]  multiples of the eigenvectors

    Returns C f64 [B, 3, 3] and b f64 [B, 3] with x = C rgb + b, normalised, for rgb in 0 .. 255.
    """
    batch = len(order)
    matrix = np.broadcast_to(np.eye(3) / 255.0, (batch, 3, 3))
    offset = np.zeros((batch, 3))
    for position in range(3):
        kind = JITTER_ORDERS[order, position]
        factor = factors[np.arange(batch), kind]
        # saturation mixes each channel with gray; the other two scale
        step = factor[:, None, None] * np.eye(3)
        step = step + np.where(kind == SATURATION, 1.0 - factor, 0.0)[:, None, None] * GRAY
        mean_gray = (np.einsum("bij,bj->bi", matrix, mean_rgb) + offset) @ GRAY
        shift = np.where(kind == CONTRAST, (1.0 - factor) * mean_gray, 0.0)
        matrix = step @ matrix
        offset = np.einsum("bij,bj->bi", step, offset) + shift[:, None]
    offset = offset + (lighting * EIGENVALUES) @ EIGENVECTORS.T
    return matrix / STD[:, None], (offset - MEAN) / STD
