"""What the commands do, from Python: `import fastres` has these names.

    import fastres
    fastres.pack("photos", out="packed-photos", side=32)
    run = fastres.train("demo", data="packed-photos", set={"batch_size": 16})
    print(run.errors["12-crop"]["top1"])
    print(run.predict(["photo.jpg", "more"])[0].name)

A keyword is the command's option of that name, with its default and its checks. What ends a command with a sentence and
an exit code raises a FastresError with that sentence and `exit_code`. Nothing needs a guard of `__main__`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from fastres.data.manifest import Manifest
from fastres.machine.arguments import asked, path_of
from fastres.machine.command import told
from fastres.machine.device import settings_kept
from fastres.machine.errors import DataError, Diverged, FastresError, MachineError, Preempted, UsageError
from fastres.machine.packer import packer
from fastres.machine.processes.distributed import open_world
from fastres.model.target import final_weights
from fastres.predict.answering import open_model
from fastres.predict.model import Model, Picture, Place, Prediction
from fastres.track.run_config import read_object
from fastres.train import command
from fastres.train.summary import of_finished

__all__ = [
    "DataError",
    "Diverged",
    "FastresError",
    "MachineError",
    "Model",
    "Preempted",
    "Prediction",
    "Run",
    "UsageError",
    "load",
    "pack",
    "train",
]


class Run:
    """A finished run's folder."""

    def __init__(self, folder: Place) -> None:
        """DataError where the run is not finished, MachineError where there is none."""
        self.folder = path_of(folder)
        final_weights(self.folder)
        self.summary: dict = of_finished(
            self.folder, read_object(self.folder / "summary.json", "train the run again") or {}
        )

    @property
    def errors(self) -> dict[str, dict[str, float]]:
        """top1 and top5 in % by crop method (`12-crop`, `centre`, ...), scores combined by summing e^score; {} where
        the run was not evaluated. `summary["errors"]` has the other combinations."""
        return self.summary["errors"].get("expsum", {})

    @cached_property
    def model(self) -> Model:
        """The network that the run ended with, on the best device here."""
        return load(self.folder)

    def predict(
        self,
        images: Place | Picture | Iterable[Place | Picture],
        *,
        views: str = "12-crop",
        combine: str = "expsum",
        background: str | None = None,
        gate: float | None = None,
    ) -> list[Prediction]:
        """As Model.predict."""
        return self.model.predict(images, views=views, combine=combine, background=background, gate=gate)


@told
def load(path: Place, *, device: str = "auto", precision: str = "auto") -> Model:
    """A finished run, a weights file (.safetensors, .pth, .t7, .onnx), or a name as timm:resnet18.a1_in1k.

    A GPU changes torch's settings of the whole process; this call restores them when it ends, and so does `predict`."""
    with settings_kept(), open_world(device) as world:
        return Model(*open_model(path_of(path), precision, world.device), path)


@told
def train(
    schedule: Place,
    *,
    data: Place = "packed",
    weights: Place | None = None,
    engine: str = "resident",
    device: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    run_dir: Place | None = None,
    seed: int = 0,
    start_from: Place | None = None,
    set: Mapping[str, object] | None = None,
    checkpoint_every: int | None = None,
    wandb: str | None = None,
    project: str = "fastres",
    wandb_artifact: bool = False,
    sync_bn: bool = False,
    allow_process_change: bool = False,
    no_evaluation: bool = False,
) -> Run:
    """Train a schedule, or the rest of it, and evaluate: `python -m fastres.train`, whose --help has the options.

    `set` overrides the schedule: {"batch_size": 64, "stages.0.epochs": 1}. The same call again takes up an unfinished
    run and returns a finished one as it is. Preempted where a signal (Ctrl-C too) stopped it: everything is saved. Only
    the main thread hears signals.
    """
    args = asked(command.parser(), **locals())
    with settings_kept(), open_world(args.device) as world:
        options = command.Options.of(args)
        command.fit(options, world)
    return Run(options.folder)


@told
def pack(
    source: Place | None = None,
    *,
    out: Place | None = None,
    small_world: str | None = None,
    engines: Sequence[str] | None = None,
    side: int | None = None,
    classes: str | None = None,
    per_class: int | tuple[int, int] | None = None,
    val_fraction: float | None = None,
    val_seed: int | None = None,
    background: str | None = None,
    workers: int | None = None,
    on_bad: str = "stop",
) -> Manifest:
    """Pack a data set, unless it is packed already: `python preprocess/pack.py`, whose --help has the options. Returns
    what was packed: its classes, and the counts of each split."""
    named = locals()
    options = packer("options")
    return packer("pack").packed(options.completed(asked(options.parser(), **named)))[0]
