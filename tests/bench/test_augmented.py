"""bench augmented: a real short run, and what its peers make."""

import json

import pytest
import torch

from fastres.bench import __main__ as bench
from fastres.bench import augmented
from fastres.bench.peers.augmented import PEERS
from fastres.machine.errors import UsageError
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry


@pytest.mark.slow
@pytest.mark.parametrize(
    ("only", "added", "more"), [("Mix", ("MixUp", "CutMix"), ()), ("resized", ("resized crop",), augmented.LARGE)]
)
def test_a_short_run_compares_with_peers_and_with_the_plain_view(tmp_path, capfd, only, added, more):
    words = ["augmented", "--batch", "8", "--rounds", "2", "--seconds", "0.01", "--images", "40", "--device", "cpu"]
    assert bench.main([*words, "--only", only, "--json", str(tmp_path / "a.json")]) == 0
    printed = capfd.readouterr().out
    assert f"| A: 64 to 256, crop 224, {added[0]} | img/s |" in printed and "**fastres, plain float32**" in printed
    result = json.loads((tmp_path / "a.json").read_text())
    modes = {f"{where}, {name}" for where in (*augmented.MODES, *more) for name in added}
    assert {row["mode"] for row in result["rows"]} == modes
    for mode in modes:
        rates = {row["name"]: row["img_per_s"] for row in result["rows"] if row["mode"] == mode}
        of_plain = result["ratios"][f"{mode}: fastres / fastres, plain"]
        assert of_plain == pytest.approx(rates["fastres"] / rates["fastres, plain"], abs=2e-3)


@pytest.mark.parametrize("added", augmented.ADDED)
@pytest.mark.parametrize("upscale", [1, 2])
def test_every_peer_makes_the_batch_and_does_the_one_thing_more(added, upscale):
    pytest.importorskip("torchvision")
    images = torch.randint(0, 256, (12, 16, 16, 3), dtype=torch.uint8)
    images[0], images[1] = 0, 255
    settings = ViewSettings(convention="half-pixel", **augmented.ADDED[added])
    for name, _, make in PEERS:
        if name == "kornia":
            pytest.importorskip("kornia", reason="kornia is not installed")
        made = make(images, Geometry(16, upscale), settings)(torch.arange(12))
        assert made.shape == (12, 3, 14 * upscale, 14 * upscale) and made.dtype == torch.float32
        assert made.is_contiguous(memory_format=torch.channels_last) and 0.3 < made.std() < 3
        if added == "erasing":
            assert ((made == 0).all(1).sum((1, 2)) > 0).all(), "every view has its box of zeros"


@pytest.mark.parametrize("added", ["resized crop", "MixUp", "CutMix"])
def test_every_peer_really_does_it(added):
    """A view of a black or white image is one colour, unless it is mixed with another. Of an image whose left quarter
    is white a fixed crop leaves a seventh to two sevenths; a resized one all or nothing now and then."""
    torch.manual_seed(0)
    images = torch.zeros(12, 16, 16, 3, dtype=torch.uint8)
    if added == "resized crop":
        images[:, :, :4] = 255
    else:
        images[::2] = 255
    settings = ViewSettings(convention="half-pixel", **augmented.ADDED[added])
    for name, _, make in PEERS:
        if name == "kornia":
            pytest.importorskip("kornia", reason="kornia is not installed")
        work = make(images, Geometry(16, 1), settings)
        made = torch.stack([work(torch.arange(12)) for _ in range(20)]).flatten(0, 1)
        spread, mean = made.mean(1).flatten(1).std(1), made.mean((1, 2, 3))
        if added == "resized crop":
            white = (made.mean(1) > -1).float().mean((1, 2))
            assert white.max() > 0.45 and white.min() < 0.1, "2 to 4 of 14 columns, were the crop fixed"
        elif added == "CutMix":
            assert (spread > 0.3).float().mean() > 0.3, "two colours in a view"
        else:
            assert (spread < 0.2).all() and ((mean > -1.5) & (mean < 0)).any(), "between black and white"


def test_what_is_not_added_is_refused():
    with pytest.raises(UsageError, match="expected a part of one of resized crop, erasing, MixUp, CutMix"):
        augmented.main(["--only", "rotation"])
    with pytest.raises(UsageError, match="2 or more"):
        augmented.main(["--batch", "1"])
