"""What a study has to train: one job a system and seed, each starting where another one's shared stages end."""

from dataclasses import dataclass
from pathlib import Path

from fastres.errors import UsageError
from fastres.schedule_loading import shared_stages
from fastres.schedule_types import Schedule


@dataclass(frozen=True)
class Job:
    """One run.

    folder  its run folder
    parent  the job whose first `shared` stages are this one's too, trained once; None where all are its own
    cost    operations of its own stages over all epochs, to weigh progress with
    """

    schedule: Schedule
    seed: int
    folder: Path
    parent: "Job | None"
    shared: int
    cost: float

    @property
    def name(self) -> str:
        return f"{self.schedule.name}, seed {self.seed}"


def plan(schedules: list[Schedule], seeds: int, runs: Path, flop: dict[str, list[int]], images: int) -> list[Job]:
    """Jobs in the order to do them: seed by seed, a system after the one it shares most stages with.

    `flop`: operations per image of every stage by system; `images`: of an epoch. The longest chains come first, so
    that whatever shares with them finds them trained. UsageError where two schedules have one name.
    """
    names = [schedule.name for schedule in schedules]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--schedules: {name} is there twice, expected every system once")
    jobs = []
    for seed in range(seeds):
        mine: list[Job] = []
        for schedule in sorted(schedules, key=lambda s: -len(s.stages)):
            parent = max(mine, key=lambda job: shared_stages(job.schedule, schedule), default=None)
            shared = shared_stages(parent.schedule, schedule) if parent else 0
            own = zip(schedule.stages[shared:], flop[schedule.name][shared:], strict=True)
            cost = sum(stage.epochs * operations for stage, operations in own) * images
            folder = runs / f"{schedule.name}-s{seed}"
            mine.append(Job(schedule, seed, folder, parent if shared else None, shared, float(cost)))
        jobs += mine
    return jobs
