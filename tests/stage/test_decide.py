"""`step=auto`: which kind of step measured seconds decide for, as a table."""

import pytest

from fastres.stage.choosing.decide import Trial, decide, in_words, worth_trying

EAGER = Trial(0.010, 0.5)


@pytest.mark.parametrize(
    ("trials", "remaining", "kind"),
    [
        ({}, 1000, "eager"),
        ({"captured": Trial(0.008, 1.0)}, 1000, "captured"),  # gains 2 s, costs 1
        ({"captured": Trial(0.008, 1.0)}, 400, "eager"),  # gains 0.8 s, costs 1
        ({"captured": Trial(0.012, 0.1)}, 10**6, "eager"),  # slower
        ({"captured": Trial(0.0099, 0.01)}, 10**6, "eager"),  # 1 %: two trials differ by as much
        ({"captured": Trial(0.0097, 0.01)}, 10**6, "captured"),
        ({"captured": Trial(0.008, 1.0), "compiled": Trial(0.006, 40.0)}, 20_000, "compiled"),  # 80 - 40 against 40 - 1
        ({"captured": Trial(0.008, 1.0), "compiled": Trial(0.006, 40.0)}, 19_000, "captured"),  # 76 - 40 against 38 - 1
        ({"captured": Trial(None, 1.0, "out of memory"), "compiled": Trial(0.006, 40.0)}, 20_000, "compiled"),
        ({"compiled": Trial(None, 3.0, "no compiler")}, 10**6, "eager"),
    ],
)
def test_the_decision(trials, remaining, kind):
    assert decide({"eager": EAGER, **trials}, remaining) == kind


@pytest.mark.parametrize(
    ("kind", "remaining", "known", "worth"),
    [
        ("compiled", 30_001, {}, True),  # a fifth of 300 s is more than a minute
        ("compiled", 29_999, {}, False),
        ("captured", 1_501, {}, True),
        ("captured", 1_499, {}, False),
        ("compiled", 10**6, {"compiled": Trial(0.006, 40.0)}, False),  # known
        ("compiled", 10**6, {"compiled": Trial(None, 3.0, "no compiler")}, False),  # known to fail
    ],
)
def test_a_dear_kind_is_tried_in_a_long_stage_alone(kind, remaining, known, worth):
    assert worth_trying(kind, EAGER.step_s, remaining, known) is worth


def test_a_choice_is_one_line():
    trials = {"eager": Trial(0.0131, 0.1), "captured": Trial(0.01, 1.0), "compiled": Trial(None, 3.0, "no compiler")}
    words = in_words("captured", trials, 4.2)
    assert words == "captured: 1.31 times eager, compiled failed (no compiler), 4 s to find out"
    trials["compiled"] = Trial(0.0125, 40.0)
    assert in_words("captured", trials, None) == "captured: 1.31 times eager (compiled 1.05), as measured before"
    assert in_words("eager", trials, None).startswith("eager: captured 1.31, compiled 1.05 times its speed and not wor")
    assert in_words("eager", {"eager": EAGER}, 1.0) == "eager: nothing else ran, 1 s to find out"
