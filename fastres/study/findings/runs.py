"""What lies in run folders, as the study's tables and figures need it. Reads files only; nothing is trained."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fastres.data import described
from fastres.machine.errors import DataError, UsageError
from fastres.model.flop import stage_flop
from fastres.model.metadata import read_metadata
from fastres.schedules import BEYOND, PLAIN, SYSTEMS, TORCH7
from fastres.schedules.loading import shared_stages
from fastres.track.log import read_log
from fastres.track.run_config import as_written, read_object
from fastres.train.stage_ends import stage_end

SMALL, QUARTER = "-small", "-quarter"  # end the names of the small world's schedules, and of the quarter size's
ALIASES = {"demo": "paper"}  # the demo is the paper's schedule on the small world
TINY_IMAGENET = "Tiny ImageNet"  # as fastres.data.described says it
SMALL_WORLD_ID = "n90000011"  # of its first class (preprocess/small_world); ImageNet's ids end long before
REAL = (64, 200)  # Tiny ImageNet's side and classes


@dataclass(frozen=True)
class Trained:
    """One run, finished or not.

    name     of its system: that of its schedule; on data that stand for the paper's without what marks those
    status   done, diverged, failed, preempted, or unfinished
    epochs   records of log.jsonl, those of stages taken over from another run included
    shared   leading stages taken over
    images   trained on in an epoch; 0 where no stage has ended
    flop     operations per image of each stage; empty as well then
    small    its classes are the small world's
    data     in words, as fastres.data.described has them; empty for weights from before they said so
    begun    stages that it has begun
    """

    folder: Path
    name: str
    schedule: dict
    seed: int
    content_digest: str
    status: str
    summary: dict
    epochs: list[dict]
    shared: int
    side: int = 0
    classes: int = 0
    images: int = 0
    flop: tuple[int, ...] = ()
    small: bool = False
    data: str = ""
    class_digest: str = ""
    begun: int = 0

    @property
    def in_last_stage(self) -> bool:
        """Whether it came to its last stage."""
        return self.begun == len(self.schedule["stages"])

    @property
    def real(self) -> bool:
        """Whether its data are Tiny ImageNet, or can be, where its weights do not say: by side and classes."""
        if self.data:
            return self.data == TINY_IMAGENET
        named = self.class_digest in ("", described.TINY_IMAGENET)
        return (self.side, self.classes) == REAL and not self.small and named

    @property
    def part(self) -> bool:
        """Whether its data are a part of Tiny ImageNet, or all of it at another size."""
        return self.data.startswith(f"{TINY_IMAGENET},")

    @property
    def own(self) -> bool:
        """Whether its data are somebody's own: none that the paper's figures may stand beside."""
        return not (self.real or self.part or self.small)

    def errors(self, how: str = "expsum") -> dict | None:
        """Final errors in % by crop method, None where the run has none."""
        return self.summary.get("errors", {}).get(how) if self.status == "done" else None

    def spent(self) -> list[float]:
        """Operations up to the end of every epoch."""
        return list(np.cumsum([self.flop[record["stage"]] * self.images for record in self.epochs], dtype=float))

    def stage_epochs(self, index: int) -> list[dict]:
        """Epoch records of one stage; negative indices count from the schedule's end."""
        index %= len(self.schedule["stages"])
        return [record for record in self.epochs if record["stage"] == index]


def read_runs(folders: Iterable[Path]) -> list[Trained]:
    """Runs in the order given. DataError for a folder that holds none, or where none has ended a stage."""
    runs = [_read(Path(folder)) for folder in folders]
    facts = {run.content_digest: run for run in runs if run.images}
    if not facts:
        raise DataError(f"{', '.join(str(run.folder) for run in runs)}: no run has ended a stage; train one first")
    return [_named(_completed(run, facts.get(run.content_digest))) for run in runs]


def _read(folder: Path) -> Trained:
    config = read_object(folder / "config.json", "pass the folder of another run")
    if config is None:
        raise DataError(f"{folder}: holds no config.json, expected a run's folder as train writes it")
    summary = read_object(folder / "summary.json", "remove it, and train writes it again") or {}
    records = read_log(folder / "log.jsonl")
    with as_written(folder):
        return _with_facts(_trained(folder, config, summary, records))


def _trained(folder: Path, config: dict, summary: dict, records: list[dict]) -> Trained:
    for record in records:  # what tables and curves take from them, looked at here where a fault has its sentence
        if record["event"] == "epoch":
            float(record["val_top1_err"]), int(record["stage"]), int(record["epoch_total"])
    if summary.get("status") == "done":
        float(summary["train_s"]), summary["errors"].items()
    return Trained(
        folder=folder,
        name=config["schedule"]["name"],
        schedule=config["schedule"],
        seed=config["seed"],
        content_digest=config["content_digest"],
        status=summary.get("status", "unfinished"),
        summary=summary,
        epochs=[record for record in records if record["event"] == "epoch"],
        begun=1 + max((record["stage"] for record in records if record["event"] in ("stage", "epoch")), default=-1),
        shared=min((record["at"][0] for record in records if record["event"] == "start"), default=0),
    )


def _with_facts(run: Trained) -> Trained:
    """What the weights of any ended stage tell about the data."""
    epochs = 0
    for index, stage in enumerate(run.schedule["stages"]):
        file, epochs = stage_end(run.folder, index), epochs + stage["epochs"]
        if file.exists():
            facts = read_metadata(file)
            ids = [wnid for wnid, _ in facts["classes"]]
            return replace(
                run,
                side=facts["side"],
                classes=len(ids),
                images=facts["images_seen"] // epochs,
                class_digest=facts.get("class_digest", ""),
                data=facts.get("data", ""),
                small=ids[0] == SMALL_WORLD_ID,
            )
    return run


def _completed(run: Trained, like: Trained | None) -> Trained:
    """A run that ended no stage learns about its data from another one on the same; the operations follow."""
    if not run.images and like is not None:
        run = replace(
            run,
            side=like.side,
            classes=like.classes,
            images=like.images,
            small=like.small,
            data=like.data,
            class_digest=like.class_digest,
        )
    if not run.images:
        return run
    return replace(run, flop=tuple(stage_flop(run.schedule, run.classes, run.side)))


def system_of(name: str) -> str:
    """The paper's or our system that a schedule of the small world or the quarter size is the counterpart of."""
    return name.removesuffix(SMALL).removesuffix(QUARTER)


def _named(run: Trained) -> Trained:
    """On one's own data a system goes by its schedule's name; elsewhere by that of the paper's that it stands for."""
    name = system_of(run.name)
    return run if run.own else replace(run, name=ALIASES.get(name, name))


def by_system(runs: list[Trained]) -> dict[str, list[Trained]]:
    """Runs by system, systems in the order of fastres/schedules, others behind them; each sorted by seed.

    Seeds may start from pretrained nets of their own: then what one seed differs by from another is the net's too.

    UsageError where two runs of a system are not two seeds of one schedule on one data set: their mean and deviation
    would say nothing.
    """
    order = [schedule.name for schedule in (*SYSTEMS, *TORCH7, *BEYOND, *PLAIN)]
    names = sorted({run.name for run in runs}, key=lambda n: (order.index(n) if n in order else len(order), n))
    systems = {name: sorted((run for run in runs if run.name == name), key=lambda run: run.seed) for name in names}
    for name, mine in systems.items():
        for one, other in zip(mine, mine[1:], strict=False):
            _check_seeds(name, one, other)
    return systems


def _check_seeds(name: str, one: Trained, other: Trained) -> None:
    stages = len(one.schedule["stages"])
    plain = [{**run.schedule, "weights": run.schedule["weights"] is not None} for run in (one, other)]
    same = len(other.schedule["stages"]) == stages == shared_stages(*plain)
    if one.seed == other.seed:
        what = f"both have seed {one.seed}"
    elif not same:
        what = "their schedules have other settings"
    elif one.content_digest != other.content_digest:
        what = "they were trained on other data"
    else:
        return
    raise UsageError(
        f"{one.folder} and {other.folder}: both are {name}, but {what}; expected seeds of one "
        "configuration, so pass one of them, or name its schedule otherwise"
    )
