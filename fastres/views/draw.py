"""Chance as a function: every random number of a sample is computed from (seed, stage, epoch, sample id).

Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers, SC 2011) maps a 128-bit counter and a 64-bit key
to four 32-bit words. Key = the seed; counter = (sample id, epoch, stage, block). Nothing is stored, so the stream is
the same for every engine, batch size, number of workers, number of processes and resume point; where neighbours are
mixed (mixing.py), for every even batch size.

Block 0: crop top, crop left, flip, order of the jitter steps.   Block 1: brightness, contrast, saturation factors.
Block 2: lighting (four uniforms, three normals by Box-Muller).   Block 3: the epoch's order.
Block 4: whether two views are mixed, how, in which proportion.   Block 5: centre of the box that CutMix exchanges.
Block 6: whether a box is erased, its top and left.   Block 7: top and left of a resized crop.
From 8: five blocks of two tries each for a resized crop's area and shape.   From 16: the same for an erased box.
Blocks 0 and 3 are integers and bit-identical everywhere; the floats start from 24-bit integers.
"""

from dataclasses import dataclass

import numpy as np

CROP_AND_ORDER, FACTORS, LIGHTING, EPOCH_ORDER, MIXING, PATCH, ERASING, CROP_PLACE, CROP_SHAPES = range(9)
ERASED_SHAPES = 16
WORD = 1 << 32
_MASK = WORD - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _multiply_32(constant: int, words):
    """High and low 32 bits of constant * words without leaving signed 64-bit range."""
    low = (words & 0xFFFF) * constant
    high = (words >> 16) * constant + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox(counter: tuple, seed: int) -> tuple:
    """Philox 4x32-10. `counter`: four int64 arrays (NumPy or torch) or ints holding 32-bit words, broadcastable.

    Returns four int64 arrays of words in 0 .. 2^32 - 1. `seed`: 0 .. 2^64 - 1.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _MASK, (seed >> 32) & _MASK
    for _ in range(10):
        high0, low0 = _multiply_32(_MULTIPLIERS[0], c0)
        high1, low1 = _multiply_32(_MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Key:
    """What chance depends on besides the sample."""

    seed: int
    stage: int
    epoch: int

    def words(self, ids: np.ndarray, block: int) -> tuple:
        """The four words of each of `ids`, i64 [B], in a block."""
        return philox((ids, np.int64(self.epoch), np.int64(self.stage), np.int64(block)), self.seed)


@dataclass(frozen=True)
class Draws:
    """One training view's chance per sample, NumPy arrays of length B.

    top, left  i64 [B]     crop offset, 0 .. room
    flip       bool [B]    mirrored left to right
    order      i64 [B]     0 .. 5, index into colour.JITTER_ORDERS
    factors    f64 [B, 3]  brightness, contrast, saturation
    lighting   f64 [B, 3]  multiples of the three colour eigenvectors, before their eigenvalues
    """

    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray
    order: np.ndarray
    factors: np.ndarray
    lighting: np.ndarray


def draw(ids: np.ndarray, *, seed: int, stage: int, epoch: int, room: int, settings) -> Draws:
    """Draw the training views of `ids` (i64 [B]).

    `settings` has flip (probability), brightness, contrast, saturation (half-widths around 1) and lighting (std).
    An offset is (word * (room + 1)) >> 32: each of the room + 1 values, equally likely to within 2^-32.
    """
    ids, key = np.asarray(ids, np.int64), Key(seed, stage, epoch)
    top, left, flip, order = key.words(ids, CROP_AND_ORDER)
    uniforms = np.stack([unit(w) for w in key.words(ids, FACTORS)[:3]], axis=-1)
    widths = np.array([settings.brightness, settings.contrast, settings.saturation])
    return Draws(
        top=(top * (room + 1)) >> 32,
        left=(left * (room + 1)) >> 32,
        flip=flip < int(settings.flip * WORD),
        order=(order * 6) >> 32,
        factors=1.0 + widths * (2.0 * uniforms - 1.0),
        lighting=settings.lighting * normals(*key.words(ids, LIGHTING)),
    )


def unit(word: np.ndarray) -> np.ndarray:
    """A word's upper 24 bits as a float64 in [0, 1), exact in float32 too."""
    return (word >> 8) * 2.0**-24


def normals(w0: np.ndarray, w1: np.ndarray, w2: np.ndarray, w3: np.ndarray) -> np.ndarray:
    """Three standard normals, f64 [B, 3], from four words (Box-Muller; 1 - u keeps the logarithm finite)."""
    radius0 = np.sqrt(-2.0 * np.log(1.0 - unit(w0)))
    radius1 = np.sqrt(-2.0 * np.log(1.0 - unit(w2)))
    angle0, angle1 = 2.0 * np.pi * unit(w1), 2.0 * np.pi * unit(w3)
    return np.stack([radius0 * np.cos(angle0), radius0 * np.sin(angle0), radius1 * np.cos(angle1)], axis=-1)


def epoch_order(count: int, *, seed: int, stage: int, epoch: int) -> np.ndarray:
    """A permutation of 0 .. count - 1, i64: ids sorted by (Philox word, id), so ties agree on every platform."""
    ids = np.arange(count, dtype=np.int64)
    word = Key(seed, stage, epoch).words(ids, EPOCH_ORDER)[0]
    return np.lexsort((ids, word))
