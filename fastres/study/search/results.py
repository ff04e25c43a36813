"""What a search leaves: the best settings as a schedule, Optuna's plots, and the same space as a W&B sweep."""

import io
import json
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

from fastres.machine.errors import Diverged, Preempted
from fastres.machine.files import write_atomic
from fastres.schedules.types import Schedule
from fastres.schedules.writing import write_schedule
from fastres.study.search.space import Choice, Range, Space, apply, first_epochs
from fastres.study.search.trials import ended_and_running, ended_trials, library
from fastres.track.error_table import standard_error
from fastres.track.metrics import TOP1
from fastres.train.options import Options


def best_of(study, schedule: Schedule, epochs: int) -> dict:
    """The best trial and how sure it is. Diverged where not one trial came to an error; Preempted where none has yet.

    `standard_error` is that of the best error on its validation images alone; the best of many is an optimistic
    choice besides.
    """
    ended, running = ended_and_running(study)
    good = [trial for trial in ended if trial.value is not None]
    if not good and running:
        raise Preempted(
            f"every trial of {schedule.name} that may yet train runs in another process; the same command shows the "
            "best as soon as one has ended"
        )
    if not good:
        raise Diverged(
            f"none of {len(ended)} trials of {schedule.name} trained; see the messages above and search around a tenth "
            "of its rates in another --out"
        )
    best = min(good, key=lambda trial: (trial.value, trial.number))
    return {
        "schedule": schedule.name,
        "epochs": epochs,
        "untried_stages": [stage.name for stage in schedule.stages[len(first_epochs(schedule, epochs).stages) :]],
        "trials": len(ended),
        "failed": len(ended) - len(good),
        "best": {
            "number": best.number,
            "val_top1_err": best.value,
            "standard_error": standard_error(best.value, best.user_attrs["count"]),
            "settings": best.user_attrs["settings"],
            "train_s": best.user_attrs["train_s"],
        },
    }


def untried(result: dict) -> str:
    """One sentence on the stages that no trial came to, with a space before it; nothing where there are none."""
    names = result["untried_stages"]
    return f" No trial came to {', '.join(names)}: what is best there was not asked." if names else ""


def write_best(path: Path, schedule: Schedule, result: dict) -> Path:
    """The whole schedule with the best settings, as a file for `train --schedule`."""
    best = result["best"]
    note = (
        f"{schedule.name} with the best of {result['trials']} searched settings.\n\nTrial {best['number']}: "
        f"{best['val_top1_err']:.2f} +- {best['standard_error']:.2f} % centre-crop validation error after "
        f"{result['epochs']} epochs.{untried(result)}\n    python -m fastres.train --schedule {shlex.quote(str(path))}"
    )
    return write_schedule(path, replace(apply(schedule, best["settings"]), name=f"{schedule.name}-searched"), note)


def draw(study, folder: Path) -> list[Path]:
    """Optuna's own plots as PNGs: history, slice, and from two good trials on parallel coordinates and importances."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    library()
    from optuna.visualization import matplotlib as plots

    folder.mkdir(parents=True, exist_ok=True)
    good = [trial for trial in ended_trials(study) if trial.value is not None]
    wanted = {"history": plots.plot_optimization_history, "slice": plots.plot_slice}
    if len({trial.value for trial in good}) > 1:
        wanted |= {"parallel": plots.plot_parallel_coordinate, "importances": plots.plot_param_importances}
    drawn = []
    for name, plot in wanted.items():
        # importances name what they explain only beside a target of one's own
        named = {} if name == "importances" else {"target_name": "centre-crop error (%)"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls its matplotlib plots experimental, at every call
            axes = plot(study, **named)
        figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
        figure.set_size_inches(15 if name == "slice" else 9, 5.5)
        picture, path = io.BytesIO(), folder / f"{name}.png"
        figure.savefig(picture, dpi=110, bbox_inches="tight")
        write_atomic(path, picture.getvalue())
        pyplot.close(figure)
        drawn.append(path)
    return drawn


def write_sweep(path: Path, space: Space, schedule_file: Path, options: Options, trials: int) -> Path:
    """The same space and judgement as a W&B sweep: `wandb sweep FILE`, then `wandb agent ...` on any machines.

    run_cap ends the sweep after as many runs as the search has trials. An agent puts the drawn settings behind --set;
    it runs through sh because only the run's own environment knows its id, which names its folder.
    """
    run = replace(options, wandb="online", no_evaluation=True)
    train = ["python", "-m", "fastres.train", *run.command_line(schedule_file)]
    folder = shlex.quote(str(path.parent / "sweep"))
    shell = f'exec {shlex.join(train)} --run-dir {folder}/"$WANDB_RUN_ID" --set "$@"'
    command = ["${env}", "sh", "-c", shell, "sweep", "${args_no_hyphens}"]
    lines = [
        "program: fastres/train/__main__.py",
        "method: random",
        f"run_cap: {trials}",
        "metric:",
        f"  name: {TOP1}",
        "  goal: minimize",
        "command:",
        *(f"  - {json.dumps(word)}" for word in command),
        "parameters:",
        *(line for name, kind in space.items() for line in _parameter(name, kind)),
    ]
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path


def _parameter(name: str, kind: Range | Choice) -> list[str]:
    if isinstance(kind, Choice):
        return [f"  {name}:", f"    values: {json.dumps(list(kind.values))}"]
    distribution = "log_uniform_values" if kind.log else "uniform"
    return [
        f"  {name}:",
        f"    distribution: {distribution}",
        f"    min: {_yaml(kind.low)}",
        f"    max: {_yaml(kind.high)}",
    ]


def _yaml(number: float) -> str:
    """A decimal fraction: to YAML 1.1, 1e-05 is a word."""
    text = f"{number:.12f}".rstrip("0")
    return text + "0" if text.endswith(".") else text
