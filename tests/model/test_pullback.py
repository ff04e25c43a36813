"""The pullback stem solves its normal equations, and answers like the old stem better than scaled filters do."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from fastres.machine.errors import UsageError
from fastres.model.pullback import pull_back, taps
from fastres.model.surgery import shrink_filters
from fastres.views.resample import CONVENTIONS, matrix

SIDE = 32


def images(count: int, seed: int, side: int = SIDE) -> torch.Tensor:
    """Real-like: amplitudes fall as 1/f, colours correlate. f32 [count, 3, side, side] of unit variance."""
    rng = np.random.default_rng(seed)
    big = 2 * side  # cut out of a larger field, whose edges wrap
    frequency = np.hypot(np.fft.fftfreq(big)[:, None], np.fft.rfftfreq(big)[None, :])
    white = np.fft.rfft2(rng.normal(size=(count, 3, big, big)))
    fields = np.fft.irfft2(white / np.maximum(frequency, 1 / big), s=(big, big))[..., :side, :side]
    mixed = np.einsum("dc,nchw->ndhw", [[1.0, 0.3, 0.1], [1.0, 0.0, -0.2], [1.0, -0.3, 0.1]], fields)
    return torch.from_numpy(mixed / mixed.std() + 0.3).float()


def filters(count: int = 8) -> torch.Tensor:
    """Gabor-like, of several frequencies and directions. f32 [count, 3, 7, 7]."""
    rng = np.random.default_rng(5)
    grid = np.arange(7) - 3
    y, x = np.meshgrid(grid, grid, indexing="ij")
    found = []
    for k in range(count):
        angle, wave = np.pi * k / count, rng.uniform(4, 14)
        wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wave + rng.uniform(0, 6))
        found.append(np.exp(-(x**2 + y**2) / 8) * wave * rng.normal(1, 0.5, (3, 1, 1)))
    return torch.from_numpy(np.stack(found)).float()


def enlarged(x: torch.Tensor, upscale: int, convention: str) -> torch.Tensor:
    resize = torch.from_numpy(matrix(x.shape[-1], x.shape[-1] * upscale, convention).copy())
    return resize @ x.double() @ resize.T


def responses(old: torch.Tensor, x: torch.Tensor, before: int, after: int, convention: str):
    """What the old stem answers before its max-pool at the pool's middles, and the new stem's input; both f64."""
    large = functional.conv2d(enlarged(x, before, convention), old.double(), stride=2, padding=3)[:, :, ::2, ::2]
    return large, enlarged(x, after, convention)


def relative_error(
    new: torch.Tensor, old: torch.Tensor, x: torch.Tensor, before: int, after: int, convention: str, gain: bool = False
) -> torch.Tensor:
    """Each filter's squared error over the variance it has to explain, away from the edges; f64 [F].

    gain: with the one factor per filter that makes it smallest.
    """
    wanted, small = responses(old, x, before, after, convention)
    got = functional.conv2d(small, new.double(), padding=1)
    edge = 4 * after
    wanted, got = (
        (y - y.mean((0, 2, 3), keepdim=True)).transpose(0, 1).flatten(1)
        for y in (wanted[..., edge:-edge, edge:-edge], got[..., edge:-edge, edge:-edge])
    )
    if gain:
        got = got * ((got * wanted).sum(1) / got.square().sum(1))[:, None]
    return (got - wanted).square().sum(1) / wanted.square().sum(1)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("after", [1, 2])
def test_it_answers_more_like_the_old_stem_than_scaled_filters(convention, after):
    """On images it was not fitted to; the others even with their best gain. Both conventions, two upscales."""
    old = filters()
    arguments = {"before": 4 * after, "after": after, "convention": convention}
    new = pull_back(old, [images(48, seed=0)], side=SIDE, **arguments)
    unseen = images(16, seed=1)
    ours = relative_error(new, old, unseen, **arguments)
    for init in ("antialias", "torch7"):
        theirs = relative_error(shrink_filters(old, init), old, unseen, **arguments, gain=True)
        assert (ours <= theirs).all() and ours.mean() < 0.7 * theirs.mean()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_it_is_brute_force_least_squares(convention):
    """Against lstsq on every position of real responses: to rounding where all positions are alike (half-pixel), to a
    few percent where the phase drifts over the image (torch7) and patches vary from place to place."""
    old, x = filters(), images(48, seed=2)
    new = pull_back(old, [x[:20], x[20:]], side=SIDE, before=4, after=1, convention=convention, stride=1)
    wanted, small = responses(old, x, 4, 1, convention)
    radius = taps(SIDE, 4, 1, convention)[0].shape[-1] // 2
    inner = slice(radius, SIDE - radius)
    patches = functional.unfold(small, 3, padding=1).unflatten(2, (SIDE, SIDE))[..., inner, inner]
    design = patches.transpose(0, 1).flatten(1).T.numpy()
    design = np.concatenate([design, np.ones((len(design), 1))], axis=1)
    target = wanted[..., inner, inner].transpose(0, 1).flatten(1).T.numpy()
    best = np.linalg.lstsq(design, target, rcond=None)[0][:-1].T.reshape(-1, 3, 3, 3)
    difference = np.linalg.norm(new.numpy() - best) / np.linalg.norm(best)
    assert difference < (1e-5 if convention == "half-pixel" else 0.05)


def test_half_pixel_puts_the_pool_at_minus_three_eighths_and_torch7_drifts():
    """The centre of mass of what the old stem's middle tap sees, against the new stem's."""
    for convention, first, last in (("half-pixel", -0.375, -0.375), ("torch7", -0.1, -0.65)):
        a, b = taps(SIDE, 4, 1, convention)
        offsets = np.arange(a.shape[-1]) - a.shape[-1] // 2
        shifts = b[:, 3] @ offsets - a[:, 1] @ offsets
        assert shifts[0] == pytest.approx(first, abs=0.03) and shifts[-1] == pytest.approx(last, abs=0.03)
        assert shifts.mean() == pytest.approx(-0.375, abs=0.01)


def test_gray_images_have_a_smallest_solution():
    gray = images(24, seed=3)[:, :1].expand(-1, 3, -1, -1)
    old = filters()
    new = pull_back(old, [gray], side=SIDE, before=4, after=1, convention="half-pixel")
    torch.testing.assert_close(new[:, 0], new[:, 1], rtol=1e-3, atol=1e-4)
    assert relative_error(new, old, gray, 4, 1, "half-pixel").max() < 0.5


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="expected a quarter"):
        pull_back(filters(), [], side=SIDE, before=4, after=2, convention="torch7")
    with pytest.raises(UsageError, match="hold no patch"):
        pull_back(filters(), [torch.zeros(1, 3, 4, 4)], side=SIDE, before=4, after=1, convention="torch7")
