"""Every system of the paper, row by row, copied here by hand from its sections 3 to 5."""

import pytest

from fastres.schedules import PAPER, SCHEDULES
from fastres.schedules.types import Plateau, ViewSettings

FC = ("fc", 5, ("fc.*",), 4, ("fc",), "frozen", None)
ALL = ("all", 10, ("*",), 4, (), "frozen", None)
ROWS = {
    "naive-fc": [("all", 9, ("*",), 4, ("fc",), "frozen", None)],
    "feature-extractor": [("fc", 9, ("fc.*",), 4, ("fc",), "frozen", None)],
    "feature-extractor-50": [("fc", 9, ("fc.*",), 4, ("fc",), "frozen", None)],
    "initialized-fc": [FC, ALL],
    "paper": [
        *(FC, ALL),
        ("conv1", 4, ("conv1.*",), 1, ("stem:torch7",), "recalibrated", None),
        ("all-56", 13, ("*",), 1, (), "frozen", None),
    ],
    "conv1-naive": [FC, ALL, ("all-56", 15, ("*",), 1, ("stem:torch7",), "frozen", None)],
    "conv1-blank": [FC, ALL, ("all-56", 15, ("*",), 1, ("stem:blank",), "frozen", None)],
    "from-scratch": [("all-56", 32, ("*",), 1, ("stem:blank",), "frozen", None)],
}


@pytest.mark.parametrize("name", ROWS)
def test_each_systems_stages(name):
    found = [(s.name, s.epochs, s.train, s.upscale, s.surgery, s.bn, s.lr) for s in SCHEDULES[name].stages]
    assert found == ROWS[name]
    plain = [s for s in SCHEDULES[name].stages if not s.lr_factors and not s.pull and not s.whole]
    assert len(plain) == len(found)


@pytest.mark.parametrize("name", ROWS)
def test_each_systems_recipe(name):
    """Rates, rule, views and weights of all are the paper's; but 64 images for 50 layers, 0.1 from nothing."""
    schedule = SCHEDULES[name]
    rate, images = {"from-scratch": (0.1, 256), "feature-extractor-50": (0.01, 64)}.get(name, (0.01, 256))
    optimizer = schedule.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (rate, 0.9, True, 1e-4)
    assert schedule.lr_policy == Plateau(factor=0.1, window=3, patience=3, least=0.5)
    assert schedule.views == ViewSettings(
        convention="torch7", brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1, flip=0.5
    )
    assert schedule.batch_size == images and schedule.width == 64
    assert schedule.weights == (None if name == "from-scratch" else "IMAGENET1K_V1")
    assert schedule.arch == ("resnet50" if name.endswith("-50") else "resnet18")


def test_the_figures_that_curves_draw_are_the_schedules():
    from fastres.study.findings.curves import FIGURES

    drawn = {label: error for figure in FIGURES for label, error in figure.lines}
    expected = {name: schedule.expected for name, schedule in SCHEDULES.items()}
    assert drawn == {
        "paper, naive": expected["naive-fc"]["12-crop top1"],
        "paper, extractor": expected["feature-extractor"]["12-crop top1"],
        "paper, final model": PAPER.expected["centre top1"],
        "paper, before size adaptation": expected["initialized-fc"]["centre top1"],
    }
