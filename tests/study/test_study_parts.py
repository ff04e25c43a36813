"""The study's parts alone: arithmetic, plan, figure 7's choice, verdicts, records, the small world's nets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastres.machine.errors import UsageError
from fastres.model.flop import stage_flop, training_flop
from fastres.model.network import Architecture
from fastres.schedules import BEYOND, PAPER, PLAIN, SCHEDULES, SYSTEMS, TORCH7
from fastres.study.findings.claims import CLAIMS
from fastres.study.findings.crops import susceptible
from fastres.study.findings.measures import spread_of
from fastres.study.findings.notes import notes_on_rates
from fastres.study.findings.report import gather, summary_lines
from fastres.study.findings.result import Result
from fastres.study.findings.runs import by_system, read_runs
from fastres.study.findings.tables import table_1, table_2
from fastres.study.jobs import plan
from preprocess.small_world.classes import wnids
from tests.support.study_runs import made_run

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_arithmetic_is_that_of_the_layer_shapes():
    """GFLOP an image of ResNet-18 with 200 classes, worked out by hand from layer shapes before this was written."""
    big, small_stem = Architecture("resnet18", 64, 200), Architecture("resnet18", 64, 200, "3x3")
    for architecture, train, crop, expected in (
        (big, ("*",), 224, 10.65),
        (small_stem, ("*",), 56, 10.20),
        (small_stem, ("conv1.*",), 56, 6.80),
        (big, ("fc.*",), 224, 3.63),
    ):
        assert training_flop(architecture, train, crop) / 1e9 == pytest.approx(expected, abs=0.01)
    by_stage = [operations / 1e9 for operations in stage_flop(PAPER.to_dict(), 200, 64)]
    assert by_stage == pytest.approx([3.63, 10.65, 6.80, 10.20], abs=0.01)


@pytest.mark.parametrize("seeds", [1, 2])
def test_plan_trains_shared_stages_once(seeds):
    schedules = [SCHEDULES[name] for name in ("naive-fc", "initialized-fc", "paper", "conv1-naive", "conv1-blank")]
    flop = {schedule.name: [1] * len(schedule.stages) for schedule in schedules}
    jobs = plan(schedules, seeds, Path("x"), flop, images=10)
    assert len(jobs) == 5 * seeds
    for job in jobs:
        if job.system in ("paper", "conv1-naive", "conv1-blank"):
            assert job.shared == 2 and job.parent.seed == job.seed and jobs.index(job.parent) < jobs.index(job)
            assert job.parent.system == "initialized-fc"
        if job.system in ("initialized-fc", "naive-fc"):
            assert job.shared == 0 and job.parent is None
        own = job.schedule.stages[job.shared :]
        assert job.cost == 10 * sum(stage.epochs for stage in own) and job.brief == 10 * len(own)
    with pytest.raises(UsageError, match="twice"):
        plan([PAPER, PAPER], 1, Path("x"), {"paper": [1] * 4}, 1)


def test_every_system_of_a_full_study_has_a_place_in_a_table_and_a_figure():
    from fastres.study.findings.curves import FIGURES
    from fastres.track.pictures import COLOURS

    drawn = {name for figure in FIGURES for name in figure.systems}
    assert all(len(figure.systems) <= len(COLOURS) for figure in FIGURES)  # each line has a colour of its own
    assert {schedule.name for schedule in (*SYSTEMS, *TORCH7, *BEYOND, *PLAIN)} <= drawn
    figures = [figure for claim in CLAIMS for figure in (claim.lower, claim.higher) if not isinstance(figure, float)]
    assert {name for name, _ in figures} <= set(SCHEDULES)


@pytest.mark.parametrize("seed", range(8))
def test_images_of_figure_7_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 300)
    classes = np.where(rng.random((4, 300)) < 0.7, labels, rng.integers(0, 5, (4, 300)))
    chosen = susceptible(classes, labels)
    changing, kinds = set(), {}
    for i in range(300):
        answers = [int(classes[m, i]) for m in range(4)]
        if len(set(answers)) > 1:
            changing.add(i)
            kinds.setdefault(tuple(answer == labels[i] for answer in answers), []).append(i)
    assert set(chosen) == changing and len(chosen) == len(changing)
    first_turn = chosen[: len(kinds)]
    assert sorted(first_turn) == sorted(ids[0] for ids in kinds.values()), "one of every kind before a second of any"
    sizes = [len(next(ids for ids in kinds.values() if i in ids)) for i in first_turn]
    some_right = [any(classes[:, i] == labels[i]) for i in first_turn]
    assert some_right == sorted(some_right, reverse=True), "what no method gets right comes last"
    assert sizes[: sum(some_right)] == sorted(sizes[: sum(some_right)], reverse=True)


def test_no_image_changes_class():
    assert susceptible(np.ones((4, 9), int), np.arange(9)) == []


def test_it_is_said_which_runs_the_rule_gave_a_lower_rate(tmp_path):
    wanted = [("paper", (0.1, 0.1)), ("paper", (0.1, 0.01)), ("naive-fc", (0.1, 0.1)), ("modern", (0.1, 0.001))]
    runs = read_runs(
        [made_run(tmp_path / str(seed), name, {}, seed=seed, rates=rates) for seed, (name, rates) in enumerate(wanted)]
    )
    (note,) = notes_on_rates(runs)
    assert "did so in 1 of the 3 runs that have it: paper (seed 1);" in note
    assert notes_on_rates(runs[1:2]) == notes_on_rates(runs[3:]) == []
    assert "in none of the 1 runs" in notes_on_rates(runs[:1])[0]


def test_runs_on_different_data_are_not_drawn_together(tmp_path):
    one, other = read_runs([made_run(tmp_path / name, name, {}) for name in ("paper", "naive-fc")])
    with pytest.raises(UsageError, match="trained on different data"):
        gather([one, replace(other, content_digest="e")], tmp_path / "out", lambda systems: None, [])


def test_spread_over_seeds():
    assert spread_of([None, None]) is None and str(spread_of([3.0])) == "3.00"
    assert str(spread_of([1.0, 3.0, None])) == "2.00 ± 1.41"


@pytest.mark.parametrize(
    "change,sentence",
    [
        ({"seed": 0}, "both have seed 0"),
        ({"content_digest": "e"}, "other data"),
        ({"schedule": SCHEDULES["naive-fc"].to_dict()}, "other settings"),
    ],
)
def test_runs_of_a_system_are_seeds_of_one_configuration(tmp_path, change, sentence):
    """One run given twice would have a deviation of nothing over two seeds."""
    one, other = read_runs([made_run(tmp_path / str(seed), "paper", {}, seed=seed) for seed in (0, 1)])
    assert by_system([other, one]) == {"paper": [one, other]}
    net = replace(other, schedule={**other.schedule, "weights": "another net"})
    assert by_system([one, net]) == {"paper": [one, net]}, "a seed may start from a net of its own"
    with pytest.raises(UsageError, match=sentence):
        by_system([one, replace(other, **change)])


def test_one_seed_is_said_to_say_nothing_of_seeds(tmp_path):
    runs = read_runs([made_run(tmp_path / str(seed), "paper", {}, seed=seed) for seed in (0, 1)])
    results = [Result("", "paper", by_system(some), {}, [], {}) for some in (runs[:1], runs)]
    assert ["one seed" in "".join(summary_lines(result)) for result in results] == [True, False]


def test_the_papers_figures_stand_beside_its_own_data_and_their_stand_in(tmp_path):
    papers = {
        "full": (8.97, 28.8, 34.4),
        "centre": (9.94, 28.9, 34.2),
        "10-crop": (9.10, 27.1, 32.2),
        "12-crop": (8.48, 26.8, 32.0),
    }
    for kind, facts in (("real", {}), ("small", {"ids": wnids(200)}), ("photos", {"photos": True})):
        names = ("naive-fc", "initialized-fc", "paper")
        systems = by_system(read_runs([made_run(tmp_path / kind / name, name, {}, **facts) for name in names]))
        nothing = kind == "photos"
        for row in table_1(systems).rows:
            top5, top1, test = papers[row[0]]
            assert (row[2], *row[5:]) == ((None,) * 3 if nothing else (top5, top1, test)), kind
        found = {row[0]: (row[3], row[6]) for row in table_2(systems).rows}
        theirs = {"naive-fc": (23.65, 48.69), "initialized-fc": (8.48, 26.83), "paper": (8.14, 24.99)}
        assert found == (dict.fromkeys(names, (None, None)) if nothing else theirs), kind
