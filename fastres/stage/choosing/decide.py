"""Which kind of step a stage takes: from measured seconds, as a function of nothing else."""

from collections.abc import Mapping
from typing import NamedTuple

# A kind whose first step costs more than this share of what is left to train is not even tried.
SHARE = 1 / 5
# Trials of one and the same step differ; a kind that gains less than this share of eager's time stays eager.
LEAST_GAIN = 0.02
# Seconds until a kind's first step is over, where this machine has not said yet: guesses, never measured on a GPU.
FIRST_GUESS_S = {"captured": 3.0, "compiled": 60.0}
OTHER_GUESS_S = 20.0
PADDED_GUESS_S = 3.0  # tried behind the same kind without


class Trial(NamedTuple):
    """How a kind of step ran.

    step_s  seconds a step, once warm; None where it failed
    cold_s  seconds until its first step was over: the making of its kernels, or of its graph
    fault   why it failed, in a sentence
    """

    step_s: float | None
    cold_s: float
    fault: str | None = None


def worth_trying(kind: str, eager_s: float, remaining: int, known: Mapping[str, Trial]) -> bool:
    """Whether a stage with `remaining` steps of `eager_s` seconds should find out how `kind` runs.

    Never for what is known already, or known to fail.
    """
    if kind in known:
        return False
    guess = PADDED_GUESS_S if kind.endswith("padded") else FIRST_GUESS_S.get(kind, OTHER_GUESS_S)
    return SHARE * remaining * eager_s > guess


def decide(trials: Mapping[str, Trial], remaining: int) -> str:
    """The kind of least expected seconds for `remaining` steps, the cost of its first step among them.

    `trials` has eager, whose first step costs nothing more: every kind's trial begins after one of eager's.
    """
    eager_s = trials["eager"].step_s
    gains = {
        kind: remaining * (eager_s - trial.step_s) - trial.cold_s
        for kind, trial in trials.items()
        if kind != "eager" and trial.step_s is not None
    }
    best = max(gains, key=gains.get, default="eager")
    return best if gains.get(best, 0.0) > LEAST_GAIN * remaining * eager_s else "eager"


def in_words(kind: str, trials: Mapping[str, Trial], spent_s: float | None) -> str:
    """One line of a choice: `captured: 1.31 times eager, 4 s to find out`; `spent_s` None where it was remembered."""
    eager_s = trials["eager"].step_s
    ran = {name: t for name, t in trials.items() if name != "eager" and t.step_s is not None}
    others = ", ".join(f"{name} {eager_s / trial.step_s:.2f}" for name, trial in ran.items() if name != kind)
    if kind != "eager":
        head = f"{kind}: {eager_s / trials[kind].step_s:.2f} times eager" + (f" ({others})" if others else "")
    else:
        head = f"eager: {others} times its speed and not worth their cost" if others else "eager: nothing else ran"
    failed = [f"{name} failed ({trial.fault})" for name, trial in trials.items() if trial.step_s is None]
    spent = "as measured before" if spent_s is None else f"{spent_s:.0f} s to find out"
    return ", ".join([head, *failed, spent])
