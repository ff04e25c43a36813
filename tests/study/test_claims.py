"""What the paper claims, judged by runs: verdicts and the errors behind them."""

from dataclasses import replace

import numpy as np
import pytest

from fastres.schedules import SCHEDULES
from fastres.study.findings.claims import BEST_OTHER, CLAIMS, EPOCHS, _word, judge
from fastres.study.findings.measures import measure, widened
from fastres.study.findings.runs import by_system, read_runs
from tests.support.study_runs import made_run


def systems_with(tmp_path, **errors):
    folders = [
        made_run(tmp_path / name, name.replace("_", "-"), {"12-crop top1": e, "centre top1": e})
        for name, e in errors.items()
    ]
    return by_system(read_runs(folders))


@pytest.mark.parametrize("initialized,word", [(40.0, "agrees"), (48.0, "open"), (49.0, "open"), (56.0, "disagrees")])
def test_verdicts_are_computed(tmp_path, initialized, word):
    """Standard error of a difference near 49 %: 0.71 points."""
    verdicts = judge(systems_with(tmp_path, initialized_fc=initialized, naive_fc=48.7))
    verdict = next(v for v in verdicts if v.claim.text == "staged fine-tuning is better than naive")
    assert verdict.word == word and verdict.error == pytest.approx(0.70, abs=0.02)


@pytest.mark.parametrize("extractor,word", [(48.9, "agrees"), (49.5, "open"), (51.2, "open"), (55.0, "disagrees")])
def test_equality_is_within_two_points_as_far_as_can_be_told(tmp_path, extractor, word):
    """Standard error of a difference: 0.71 points, so up to 0.58 apart they are equal and from 3.42 on they are not."""
    verdicts = judge(systems_with(tmp_path, naive_fc=48.7, feature_extractor=extractor))
    assert verdicts[0].claim.equal and verdicts[0].word == word


@pytest.mark.parametrize(
    "lowest,status,word",
    [
        (60.0, "done", "agrees"),
        (50.3, "done", "open"),
        (30.0, "done", "disagrees"),
        (60.0, "unfinished", "open"),
        (None, "diverged", "agrees"),
        (60.0, "diverged", "agrees"),
        (45.0, "diverged", "open"),
    ],
)
def test_a_bound_is_held_by_an_error_above_it_and_by_divergence(tmp_path, lowest, status, word):
    run = made_run(tmp_path / "a", "conv1-blank", {}, curve=(95.0, lowest) if lowest else (), status=status)
    (run,) = read_runs([run])

    def judged(*runs):
        return next(v for v in judge({"conv1-blank": list(runs)} if runs else {}) if v.claim.lower == 50.0)

    verdict = judged(run)
    assert verdict.word == word and (verdict.figures == "diverged") == (status == "diverged" and word == "agrees")
    assert judged().word == "not measured"
    for data in ("Tiny ImageNet, 100 of its 200 classes, 16 pixels", "the small world"):
        assert judged(replace(run, data=data)).word == "not measured", "50 % is a figure of Tiny ImageNet"
    begun = replace(run, seed=1, status="unfinished", epochs=[{"stage": 3, "val_top1_err": 53.9}])
    assert judged(run, begun).word != "agrees" or status == "diverged", "what is to come may break it"


def test_a_divergence_before_the_blank_layer_says_nothing_of_it(tmp_path):
    for begun, word in ((1, "not measured"), (len(SCHEDULES["conv1-blank"].stages), "agrees")):
        run = made_run(tmp_path / word, "conv1-blank", {}, curve=(), status="diverged", begun=begun)
        verdict = next(v for v in judge(by_system(read_runs([run]))) if v.claim.lower == 50.0)
        assert verdict.word == word


def test_the_error_before_the_last_stage_is_of_a_stage_that_is_over(tmp_path):
    (run,) = read_runs([made_run(tmp_path / "a", "conv1-naive", {})])
    before = len(run.schedule["stages"]) - 2
    whole = [{"stage": before, "val_top1_err": 70.0 - k} for k in range(run.schedule["stages"][before]["epochs"])]
    for epochs, found in ((whole, whole[-1]["val_top1_err"]), (whole[:-1], None)):
        assert measure(replace(run, epochs=epochs), "before-last-stage centre top1") == found


def test_few_seeds_decide_little():
    """Half of an interval of 95.45 %: seven standard errors with two seeds, a hundredth more than two with many."""
    assert [round(widened(n), 2) for n in (1, 2, 3, 5, 10)] == [1.0, 6.98, 2.26, 1.43, 1.16]
    assert widened(100) == widened(10)


def test_two_crop_methods_differ_by_seeds_too(tmp_path):
    """Nothing on average over the same images, 4 points one way with one seed and 4 the other way with another."""
    runs = [
        made_run(tmp_path / str(seed), "initialized-fc", {"10-crop top1": 30 + d, "centre top1": 30 - d}, seed=seed)
        for seed, d in enumerate((2.0, -2.0, 0.5))
    ]
    wrong = {"centre top1": np.zeros(10_000), "10-crop top1": np.zeros(10_000)}
    verdicts = judge(by_system(read_runs(runs)), ("initialized-fc", wrong))
    verdict = next(v for v in verdicts if v.claim.text == "10-crop is better than the centre crop")
    assert verdict.word == "open" and verdict.error > 2


def test_the_best_of_four_rivals_must_lead_by_more(tmp_path):
    """Chosen on the images that it is judged by."""
    claim = next(claim for claim in CLAIMS if claim.higher[1].startswith(BEST_OTHER))
    assert [_word(claim, difference, 1.0) for difference in (2.1, -2.2, -2.6)] == ["agrees", "open", "disagrees"]


@pytest.mark.parametrize(
    "slow,word",
    [
        *(((4,) * 4, "agrees"), ((3,) * 4, "agrees"), ((3,) * 3, "open"), ((4, 4), "open"), ((4,), "open")),
        *(((4, 2, 4, 2), "open"), ((1,) * 4, "disagrees")),
    ],
)
def test_epochs_to_settle_are_judged_by_their_seeds(tmp_path, slow, word):
    """The extractor settles in its 2nd epoch with every seed."""

    def settling(name, epoch, seed):
        curve = [50.0] * (epoch - 1) + [40.0] * (5 - epoch)
        return made_run(tmp_path / f"{name}{seed}", name, {}, seed=seed, curve=curve)

    runs = [settling("feature-extractor", 2, seed) for seed in range(len(slow))]
    runs += [settling("naive-fc", epoch, seed) for seed, epoch in enumerate(slow)]
    verdict = next(v for v in judge(by_system(read_runs(runs))) if v.claim.higher[1] == EPOCHS)
    assert verdict.word == word and "epochs" in verdict.figures


def test_two_crop_methods_are_compared_image_by_image(tmp_path):
    """10-crop errs on 30 of 10,000 images that the centre crop gets right, and never the other way round."""
    run = made_run(tmp_path / "a", "initialized-fc", {"10-crop top1": 30.3, "centre top1": 30.0})
    systems, wrong = by_system(read_runs([run])), {"centre top1": np.zeros(10_000), "10-crop top1": np.zeros(10_000)}
    wrong["10-crop top1"][:30] = 1
    where = next(k for k, claim in enumerate(CLAIMS) if claim.text == "10-crop is better than the centre crop")
    assert judge(systems)[where].word == "open"
    verdict = judge(systems, ("initialized-fc", wrong))[where]
    assert verdict.word == "disagrees" and verdict.error == pytest.approx(100 * (0.003 * 0.997 / 10_000) ** 0.5)
