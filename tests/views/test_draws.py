"""The draws of the views: Philox, the range of every one, what each depends on; the order of an epoch."""

import numpy as np
import torch

from fastres.schedules.types import ViewSettings
from fastres.views.draw import draw, epoch_order, philox


def test_philox_known_answers():
    """The three test vectors published with Random123 (philox4x32, 10 rounds)."""
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), 0x299F31D0A4093822
    known = [
        (((0,) * 4, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (((0xFFFFFFFF,) * 4, 2**64 - 1), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (pi, (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ]
    for (counter, key), words in known:
        assert philox(counter, key) == words
        as_arrays = philox(tuple(np.array([c], np.int64) for c in counter), key)
        as_tensors = philox(tuple(torch.tensor([c]) for c in counter), key)
        assert tuple(int(w[0]) for w in as_arrays) == tuple(int(w[0]) for w in as_tensors) == words


def test_draws_cover_exactly_their_range():
    draws = draw(np.arange(60_000), seed=1, stage=0, epoch=1, room=32, settings=ViewSettings())
    assert set(draws.top) == set(draws.left) == set(range(33))
    assert set(draws.order) == set(range(6))
    assert abs(draws.flip.mean() - 0.5) < 0.01
    assert draws.factors.min() >= 0.6 and draws.factors.max() < 1.4
    np.testing.assert_allclose(draws.factors.mean(0), 1, atol=0.005)
    np.testing.assert_allclose(draws.lighting.std(0), 0.1, rtol=0.02)
    counts = np.bincount(draws.top)
    assert counts.min() > 0.9 * counts.mean()  # 1,818 a bin, std 42
    assert (
        np.abs(np.corrcoef(np.c_[draws.top, draws.left, draws.flip, draws.factors, draws.lighting].T) - np.eye(9)).max()
        < 0.03
    )


def test_no_room_to_move_and_no_augmentation():
    settings = ViewSettings(brightness=0, contrast=0, saturation=0, lighting=0, flip=0)
    draws = draw(np.arange(100), seed=1, stage=0, epoch=1, room=0, settings=settings)
    assert not draws.top.any() and not draws.flip.any() and (draws.factors == 1).all()
    always = draw(np.arange(100), seed=1, stage=0, epoch=1, room=0, settings=ViewSettings(flip=1))
    assert always.flip.all()


def test_draws_depend_on_every_key_and_on_nothing_else():
    def key(**change):
        base = {"seed": 1, "stage": 0, "epoch": 1, "room": 32}
        return draw(np.arange(50), settings=ViewSettings(), **{**base, **change})

    base = key()
    for change in ({"seed": 2}, {"seed": 1 + (1 << 32)}, {"stage": 1}, {"epoch": 2}):
        assert (key(**change).factors != base.factors).any()
    shuffled = np.random.default_rng(0).permutation(50)
    apart = draw(shuffled, seed=1, stage=0, epoch=1, room=32, settings=ViewSettings())
    assert np.array_equal(apart.factors, base.factors[shuffled])
    assert np.array_equal(apart.top, base.top[shuffled])


def test_epoch_order_is_a_permutation_sorted_by_word_then_id():
    order = epoch_order(5000, seed=3, stage=2, epoch=4)
    assert np.array_equal(np.sort(order), np.arange(5000))
    assert not np.array_equal(order, epoch_order(5000, seed=3, stage=2, epoch=5))
    word = philox((np.arange(5000), 4, 2, 3), 3)[0]
    assert sorted(range(5000), key=lambda i: (word[i], i)) == list(order)
