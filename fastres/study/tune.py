"""The learning rate of each system by the same search, so that no system is judged at another one's rate."""

import json
from dataclasses import asdict, replace
from pathlib import Path

from fastres.data.manifest import load_manifest
from fastres.schedule_types import Schedule
from fastres.search.results import best_of
from fastres.search.space import Choice, Space, apply
from fastres.search.trials import Search
from fastres.track.console import say

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # times what the schedule says; powers of two, so that systems still share stages


def tuned(schedule: Schedule, folder: Path, options: list[str]) -> tuple[Schedule, str]:
    """`schedule` at the best of five rates, and a sentence that says which and why.

    Each is judged by the centre-crop error after one epoch of every stage: three epochs from the start would tell
    staged systems nothing but how to train a head. Resumable: `folder` keeps the trials.
    """
    brief = replace(schedule, stages=tuple(replace(stage, epochs=1) for stage in schedule.stages))
    space: Space = {"optimizer.lr": Choice(tuple(schedule.optimizer.lr * factor for factor in FACTORS))}
    data = Path(options[options.index("--data") + 1])
    config = {"schedule": brief.to_dict(), "content_digest": load_manifest(data).content_digest,
              "space": {name: asdict(kind) for name, kind in space.items()}}  # fmt: skip
    search = Search(brief, space, folder, tuple(options), json.loads(json.dumps(config)), "grid")
    study = search.open()
    search.run(study, len(FACTORS))
    best = best_of(study, schedule, brief.epochs)["best"]
    note = (f"{schedule.name}: learning rate {best['settings']['optimizer.lr']:g}, the best of {len(FACTORS)} from "
            f"{schedule.optimizer.lr * FACTORS[0]:g} to {schedule.optimizer.lr * FACTORS[-1]:g}: "
            f"{best['val_top1_err']:.1f} % after one epoch of every stage")  # fmt: skip
    say(note)
    return apply(schedule, best["settings"]), note
