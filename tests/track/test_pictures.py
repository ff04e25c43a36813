"""The pictures: that they open, are readable in size, and show what they were given."""

import numpy as np
import pytest
from PIL import Image

from fastres.track import pictures

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def epoch(total, stage, name, top1):
    return {
        "event": "epoch",
        "epoch_total": total,
        "stage": stage,
        "stage_name": name,
        "val_top1_err": top1,
        "val_top5_err": top1 / 3 if top1 is not None else None,
    }


def pixels(path, least=(700, 400)):
    """The picture as u8 [H,W,3]; it must be of README size and not blank."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width >= least[0] and image.height >= least[1] and max(image.size) < 2500
        array = np.asarray(image.convert("RGB"))
    assert array.std() > 5
    return array


def count(array, colour):
    """How many pixels are of `colour` (hex), give or take three levels."""
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(array.astype(int) - target) <= 3).all(-1).sum())


def borders(array):
    """How many vertical lines of gray dashes there are: columns of which a third is neither white nor black."""
    gray = (array.max(-1) < 225) & (array.min(-1) > 100) & (np.ptp(array, axis=-1) < 6)
    dashed = gray.mean(0) > 1 / 3
    return int((dashed[1:] & ~dashed[:-1]).sum())


def test_error_curves_show_both_errors_the_borders_and_the_paper(tmp_path):
    records = [epoch(total, total // 3, f"stage {total // 3}", 60.0 - total) for total in range(1, 12)]
    plain = pixels(pictures.error_curves(records, tmp_path / "a.png"))
    one_stage = pixels(pictures.error_curves([{**record, "stage": 0} for record in records], tmp_path / "b.png"))
    paper = pixels(pictures.error_curves(records, tmp_path / "c.png", {"paper": 25.0}))
    for array in (plain, one_stage, paper):
        assert count(array, pictures.TOP1) > 1000 and count(array, pictures.TOP5) > 500
    assert borders(plain) == borders(one_stage) + 3
    assert count(paper, pictures.PAPER) > 50 and count(plain, pictures.PAPER) == 0
    assert not list(tmp_path.glob(".*")), "no temporary file stays"


@pytest.mark.parametrize("errors", [[50.0], [50.0, None, 40.0], [None, None], [50.0, 0.0]])
def test_error_curves_of_short_and_broken_runs(tmp_path, errors):
    records = [epoch(total, 0, "a stage with a rather long name", error) for total, error in enumerate(errors, start=1)]
    pixels(pictures.error_curves(records, tmp_path / "a.png"))


def test_no_epochs_is_the_callers_mistake(tmp_path):
    with pytest.raises(ValueError, match="no epoch"):
        pictures.error_curves([], tmp_path / "a.png")


@pytest.mark.parametrize("filters", [1, 16, 18, 64])
def test_stem_filters_of_any_count(tmp_path, filters):
    before = np.random.default_rng(0).normal(size=(filters, 3, 7, 7)).astype(np.float32)
    pixels(pictures.stem_filters(before, before[:, :, ::3, ::3], tmp_path / "a.png"), least=(700, 300))
    blank = np.zeros((filters, 3, 3, 3), np.float32)
    pixels(pictures.stem_filters(before, blank, tmp_path / "b.png"), least=(700, 300))


def test_mosaic_puts_every_filter_at_its_place_in_row_order():
    tiles = np.arange(5, dtype=np.float32)[:, None, None, None] / 10 * np.ones((5, 3, 3, 3), np.float32)
    mosaic = pictures._mosaic(tiles, columns=3)
    tile = mosaic.shape[0] // 2
    assert mosaic.shape == (2 * tile, 3 * tile, 3)
    middles = mosaic[tile // 2 :: tile, tile // 2 :: tile, 0]
    assert np.allclose(middles, [[0.0, 0.1, 0.2], [0.3, 0.4, 1.0]])
    assert (mosaic[0] == 1).all() and (mosaic[:, tile] == 1).all(), "white between the tiles"


def test_colours_undo_the_normalisation_and_clip():
    image = np.random.default_rng(0).uniform(size=(2, 3, 5, 4)).astype(np.float32)
    mean, std = np.float32(MEAN).reshape(3, 1, 1), np.float32(STD).reshape(3, 1, 1)
    shown = pictures._colours((image - mean) / std, MEAN, STD)
    assert np.allclose(shown, image.transpose(0, 2, 3, 1), atol=1e-6)
    assert pictures._colours((image + 5 - mean) / std, MEAN, STD).max() == 1.0


@pytest.mark.parametrize(("views", "height", "width"), [(12, 112, 112), (5, 28, 20), (1, 8, 8)])
def test_view_sheet_shows_the_views_in_their_colours(tmp_path, views, height, width):
    def flat(colours):
        shown = (np.float32(colours) - np.float32(MEAN)) / np.float32(STD)
        return np.broadcast_to(shown[:, :, None, None], (len(colours), 3, height, width))

    source = np.full((32, 32, 3), (0, 0, 255), np.uint8)
    names = [f"view {k}" for k in range(6)] + [f"view {k}, mirrored" for k in range(6)]
    array = pixels(
        pictures.view_sheet(
            flat([(1.0, 0.0, 0.0)] * views), flat([(0.0, 1.0, 0.0)] * 12), names, source, tmp_path / "a.png", MEAN, STD
        )
    )
    assert count(array, "#ff0000") > 3_000 * views and count(array, "#00ff00") > 3_000 * 12
    assert count(array, "#0000ff") > 10_000


@pytest.mark.fault(47)
def test_a_dollar_is_a_dollar_and_an_underscore_stays_in_the_legend(tmp_path):
    """matplotlib takes $...$ for TeX, which half a formula ends with a traceback, and hides labels that begin so."""
    drawn = [
        pictures.error_curves([epoch(1, 0, name, 50.0), epoch(2, 0, name, 40.0)], tmp_path / "errors.png")
        for name in ("$\\frac$", "US$ and AU$")
    ]
    assert all(pixels(path).shape for path in drawn)
    assert pictures.legend_label("_mine") == " _mine" and pictures.legend_label("mine_") == "mine_"
