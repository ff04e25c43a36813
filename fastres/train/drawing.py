"""The pictures of a finished run, and what it gets wrong."""

from pathlib import Path

import torch

from fastres import views
from fastres.data.labels import read_names
from fastres.evaluate.mistake_files import claim_mistakes, write_mistakes
from fastres.evaluate.mistakes import find_mistakes
from fastres.machine.console import say
from fastres.machine.errors import DataError, UsageError
from fastres.stage.setting import Setting
from fastres.track import pictures
from fastres.track.error_table import PAPERS
from fastres.track.mistakes import FOLDER
from fastres.track.run_dir import RunDir
from fastres.views import colour
from fastres.views.geometry import Geometry

TRAIN_VIEWS_SHOWN = 16


def draw(setting: Setting, run: RunDir, log: list[dict]) -> list[str]:
    """Error by epoch and the first stage's views; the stem was drawn at its surgery. Returns the paths."""
    folder = run.pictures
    epochs = [record for record in log if record["event"] in ("untrained", "epoch")]
    paper = {
        f"paper, {name.removesuffix(' top1')}": value
        for name, value in setting.schedule.expected.items()
        if name in ("12-crop top1", "centre top1")
    }
    drawn = [pictures.error_curves(epochs, folder / "error_by_epoch.png", paper=paper or None)]
    if (folder / "stem_filters.png").exists():
        drawn.append(folder / "stem_filters.png")
    drawn.append(_draw_views(setting, folder / "views.png"))
    return [str(path) for path in drawn]


def draw_mistakes(setting: Setting, run: RunDir, scores: torch.Tensor) -> list[str]:
    """The folder of the run's mistakes from scores f32 [N, 12, C] of the validation images. Returns the pictures'
    paths; where the folder is somebody else's, or the files' names are gone, says so and returns none."""
    manifest, val, folder = setting.manifest, setting.val, run.path / FOLDER
    try:
        files = read_names(setting.packed, manifest, "val")
        claim_mistakes(folder, PAPERS)
    except (DataError, UsageError) as fault:
        say(f"what the network gets wrong is not written: {fault}")
        return []
    classes = [(info.wnid, info.name) for info in manifest.classes]
    found = find_mistakes(scores.to(val.device), val.labels, classes, files, PAPERS)
    return [str(path) for path in write_mistakes(folder, found, val)]


def _draw_views(setting: Setting, path: Path) -> Path:
    """Training views of a few images and the twelve test views of one, in the first stage's geometry."""
    schedule, train = setting.schedule, setting.train
    settings, first = schedule.views, schedule.stages[0]
    geometry = Geometry(setting.manifest.side, first.upscale, first.whole)
    ids = torch.arange(min(TRAIN_VIEWS_SHOWN, len(train)), device=train.device)
    # spread over the classes, since images are packed class by class
    ids = ids * (len(train) // len(ids))
    train_plan = views.TrainPlan(geometry=geometry, settings=settings, seed=setting.seed, stage=0, epoch=1)
    test_plan = views.twelve_views(geometry, settings)
    one = ids[len(ids) // 2 :][:1]
    rows, pixels = torch.arange(len(ids), device=ids.device), train.pixels(one)
    return pictures.view_sheet(
        views.apply(train.pixels(ids), rows, ids, train_plan).cpu().numpy(),
        views.apply(pixels, rows[:1], one, test_plan).cpu().numpy(),
        [view.name for view in views.TWELVE_VIEWS],
        pixels[0].cpu().numpy(),
        path,
        colour.MEAN,
        colour.STD,
    )
