"""The trials of a search: who runs which, and how one is judged.

Several processes may work on one search. A trial is claimed under a file lock and holds a lock of its own while it
runs; the kernel gives both back when a process dies, however it dies. So a trial that is marked as running but whose
lock is free was killed: it is queued again with the same settings and goes on from its own checkpoint.
"""

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fastres.machine.console import say
from fastres.machine.errors import Diverged, MachineError, Preempted
from fastres.machine.extras import install_line
from fastres.machine.folders import claim
from fastres.machine.gpu import is_full
from fastres.machine.lock import Lock, locked
from fastres.machine.processes.distributed import open_world
from fastres.schedules.types import Schedule
from fastres.schedules.writing import write_schedule
from fastres.study.search.space import Space, apply
from fastres.study.search.storage import open_storage, storage_faults
from fastres.track.run_config import refuse_different
from fastres.train import command
from fastres.train.options import Options

SAMPLERS = ("random", "tpe")
CLAIM = "claim.lock"
ENDED = "ended"  # user attribute of a trial that came to its end, good or bad


class TrialFailed(Exception):
    """A trial's settings do not train: an answer of the search, not a fault of it."""


@dataclass(frozen=True)
class Search:
    """What is searched and how.

    schedule  what every trial trains, already cut to the epochs it is judged after
    options   makes a trial's run of its schedule and folder: data, seed, device and the like are in it already
    sampler   random (the paper's) or tpe
    listed    settings to try before any drawn ones, in this order
    apply     makes the schedule of a trial from `schedule` and the drawn settings
    """

    schedule: Schedule
    space: Space
    out: Path
    options: Callable[..., Options]
    config: dict  # what must be the same for trials to be comparable
    sampler: str = "random"
    seed: int = 0
    listed: tuple[dict, ...] = ()
    apply: Callable[[Schedule, dict], Schedule] = apply

    @property
    def database(self) -> Path:
        """Where the trials are kept."""
        return self.out / "search.db"

    def open(self):
        """The Optuna study on disk; UsageError where the folder holds another search."""
        optuna = library()
        claim(self.out, CLAIM, "a search of ours")
        (self.out / "trials").mkdir(exist_ok=True)
        with locked(self.out / CLAIM), storage_faults(self.database):
            study = optuna.create_study(
                storage=open_storage(self.database),
                study_name="search",
                load_if_exists=True,
                direction="minimize",
            )
            config = json.loads(json.dumps(self.config))
            stored = study.user_attrs.get("config")
            if stored is None:
                for settings in self.listed:  # before the mark that says they are there
                    study.enqueue_trial(settings, skip_if_exists=True)
                study.set_user_attr("config", config)
            else:
                again = "choose another --out, or give the same values again"
                refuse_different(stored, config, f"{self.out}: holds another search; {again}")
        return study

    def run(self, study, trials: int) -> None:
        """Work until `trials` trials have ended, here or in other processes; each failed one counts."""
        with storage_faults(self.database):
            self._work(study, trials)

    def _work(self, study, trials: int) -> None:
        while True:
            with contextlib.ExitStack() as held:
                lock = Lock(self.out / CLAIM)
                held.callback(lock.release)
                self._requeue_killed(study)
                if sum(map(len, ended_and_running(study))) >= trials:
                    return
                study.sampler = self._sampler(_drawn(study))
                study.optimize(partial(self._run, lock, held), n_trials=1, catch=(TrialFailed,))

    def _run(self, turn: "Lock", held: contextlib.ExitStack, trial) -> float:
        """Train one trial; its centre-crop validation top-1 error in % after the last epoch.

        `held` keeps the trial's lock until Optuna has the answer: before that it is still marked as running, and with
        its lock free another process would take it for killed.
        """
        folder = self._folder(trial)
        held.enter_context(locked(folder / "alive.lock"))
        settings = {name: kind.suggest(trial, name) for name, kind in self.space.items()}
        trial.set_user_attr("settings", settings)
        turn.release()  # not before it has settings: whoever is next counts what was drawn
        schedule = self.apply(self.schedule, settings)
        write_schedule(folder / "schedule.py", schedule, f"Trial {folder.name} of a search over {self.schedule.name}.")
        say(f"trial {trial.number}: {', '.join(f'{k} {_short(v)}' for k, v in settings.items())}")
        try:
            summary = self._train(trial, schedule, folder / "run")
        except (Preempted, KeyboardInterrupt):
            _queue_again(trial.study, trial)
            raise
        error = summary["stages"][-1]["val_top1_err"]
        trial.set_user_attr("train_s", summary["train_s"])
        trial.set_user_attr("count", summary["count"])
        trial.set_user_attr(ENDED, "done")
        say(f"trial {trial.number}: {error:.2f} % after {self.schedule.epochs} epochs")
        return error

    def _train(self, trial, schedule: Schedule, run: Path) -> dict:
        """Train in this process. TrialFailed where the settings are to blame; any other fault ends the search."""
        try:
            options = self.options(schedule=schedule, run_dir=run, wandb="off", no_evaluation=True)
            with open_world(options.device) as world:
                summary = command.fit(options, world)
        except (Diverged, MachineError) as error:
            if isinstance(error, MachineError) and not is_full(error.__cause__):
                raise
            trial.set_user_attr(ENDED, "diverged" if isinstance(error, Diverged) else "memory")
            say(f"trial {trial.number}: {error}")
            _drop_weights(run)
            raise TrialFailed(str(error)) from error
        finally:
            torch.cuda.empty_cache()
        _drop_weights(run)
        return summary

    def _sampler(self, number: int):
        """Each trial draws from its own stream, so a search is the same in one process, in several and resumed."""
        samplers, seed = library().samplers, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        if self.sampler == "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True)
        return samplers.RandomSampler(seed=seed)

    def _requeue_killed(self, study) -> None:
        for seen in _in_state(study, "RUNNING"):
            lock = Lock(self._folder(seen) / "alive.lock", wait=False)
            if not lock.held:
                continue
            lock.release()
            # looked at anew behind the lock: it is free too where its process told Optuna in between
            trial = study.get_trials(deepcopy=False)[seen.number]
            if trial.state != seen.state:
                continue
            say(f"trial {trial.number} was killed; its settings are tried again unless they did not train")
            study.tell(trial.number, state=library().trial.TrialState.FAIL)
            if trial.user_attrs.get(ENDED, "done") == "done":  # else that was its answer, and it has no weights
                _queue_again(study, trial)

    def _folder(self, trial) -> Path:
        """Where a trial trains; one that is tried again goes on where it was."""
        return self.out / "trials" / f"{_origin(trial):04d}"


def ended_trials(study) -> list:
    """Trials that came to their end: those with an error, and those whose settings do not train."""
    return ended_and_running(study)[0]


def ended_and_running(study) -> tuple[list, list]:
    """By one look: in two, a trial that ends between them is in both or in neither."""
    trials, running = study.get_trials(deepcopy=False), library().trial.TrialState.RUNNING
    return [t for t in trials if _has_ended(t)], [t for t in trials if t.state == running]


def _has_ended(trial) -> bool:
    """Not before Optuna has noted it, which comes a moment after its end: before that it has no error. Nor where its
    process was killed between the two: it is tried again."""
    lost = trial.state == library().trial.TrialState.FAIL and trial.user_attrs.get(ENDED) == "done"
    return ENDED in trial.user_attrs and trial.state.is_finished() and not lost


def library():
    """Optuna, quiet; MachineError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise MachineError(f"the search needs Optuna, which is not installed; {install_line('search')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a trial that fails is told by us, without a traceback
    return optuna


def _origin(trial) -> int:
    return trial.user_attrs.get("again_of", trial.number)


def _drawn(study) -> int:
    """How many settings were drawn so far: trials but those tried again, and those killed before they had any."""
    failed = library().trial.TrialState.FAIL
    return sum(
        "again_of" not in trial.user_attrs and (trial.state != failed or bool(_settings(trial)))
        for trial in study.get_trials(deepcopy=False)
    )


def _settings(trial) -> dict | None:
    """What was drawn, or what is listed where it had not begun."""
    return trial.params or trial.system_attrs.get("fixed_params")


def _queue_again(study, trial) -> None:
    """The same settings once more, before any new ones."""
    if settings := _settings(trial):  # killed before it had drawn any: nothing is lost
        study.enqueue_trial(settings, user_attrs={"again_of": _origin(trial)})


def _drop_weights(run: Path) -> None:
    """A search keeps figures."""
    for large in ("checkpoints", "stages", "final.safetensors"):
        path = run / large
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _in_state(study, name: str) -> list:
    state = library().trial.TrialState[name]
    return study.get_trials(deepcopy=False, states=(state,))


def _short(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
