"""What a study has to train: one job a system and seed, each starting where another one's shared stages end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fastres.machine.errors import UsageError
from fastres.schedules.loading import shared_stages
from fastres.schedules.types import Schedule


@dataclass(frozen=True)
class Job:
    """One run.

    folder  its run folder
    parent  the job whose first `shared` stages are this one's too, trained once; None where all are its own
    cost    operations of its own stages over all epochs, to weigh progress with
    brief   of one epoch of each of them: what a trial of a search for its rate costs
    """

    schedule: Schedule
    seed: int
    folder: Path
    parent: "Job | None"
    shared: int
    cost: float
    brief: float = 0.0

    @property
    def system(self) -> str:
        return self.schedule.name

    @property
    def name(self) -> str:
        return f"{self.system}, seed {self.seed}"


def plan(
    schedules: list[Schedule],
    seeds: int,
    runs: Path,
    flop: dict[str, list[int]],
    images: int,
    nets: Mapping[str, Sequence[str]] | None = None,
) -> list[Job]:
    """Jobs in the order to do them: seed by seed, a system after those that it shares stages with.

    `flop`: operations per image of every stage by system; `images`: of an epoch; `nets`: pretrained weights by
    architecture, dealt to the seeds in turn. The shortest chains come first, so that every stage that is shared belongs
    to the plainest system that has it. UsageError where two schedules have one name.
    """
    names = [schedule.name for schedule in schedules]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--schedules: {name} is there twice, expected every system once")
    jobs = []
    for seed in range(seeds):
        mine: list[Job] = []
        for schedule in sorted((dealt(s, seed, nets or {}) for s in schedules), key=lambda s: len(s.stages)):
            parent = max(mine, key=lambda job: shared_stages(job.schedule, schedule), default=None)
            shared = shared_stages(parent.schedule, schedule) if parent else 0
            own = list(zip(schedule.stages[shared:], flop[schedule.name][shared:], strict=True))
            mine.append(
                Job(
                    schedule,
                    seed,
                    runs / f"{schedule.name}-s{seed}",
                    parent if shared else None,
                    shared,
                    cost=float(sum(stage.epochs * operations for stage, operations in own) * images),
                    brief=float(sum(operations for _, operations in own) * images),
                )
            )
        jobs += mine
    return jobs


def dealt(schedule: Schedule, seed: int, nets: Mapping[str, Sequence[str]]) -> Schedule:
    """`schedule` with the pretrained net that this seed starts from."""
    if schedule.weights is None or not nets.get(schedule.arch):
        return schedule
    mine = nets[schedule.arch]
    return replace(schedule, weights=mine[seed % len(mine)])
