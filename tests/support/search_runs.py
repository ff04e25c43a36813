"""For the search's tests: the command in this process, and training replaced by arithmetic."""

from fastres.machine.command import run_command
from fastres.study.search import __main__ as search_module
from fastres.study.search.trials import library
from fastres.train import command as train_command
from tests.conftest import TINY_FILE


def search(packed, out, *extra, code=0):
    """The command in this process; `out` is its folder."""
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--out", str(out), "--device", "cpu"]
    assert run_command(lambda: search_module.main([*arguments, *map(str, extra)])) == code


def trials_in(out):
    """All trials of the search in a folder."""
    return library().load_study(study_name="search", storage=f"sqlite:///{out / 'search.db'}").trials


def arithmetic(monkeypatch):
    """Training replaced by arithmetic: the error is what the settings say; what raises is chosen by the test."""
    calls = []

    def fake(options, world):
        schedule = options.schedule
        calls.append((options.run_dir, schedule))
        options.run_dir.mkdir(exist_ok=True)
        for act in fake.acts.pop(len(calls) - 1, ()):
            act()
        error = 1000 * abs(schedule.optimizer.lr - 0.05)
        return {"stages": [{"val_top1_err": error}], "train_s": 1.0, "count": 400}

    fake.calls, fake.acts = calls, {}
    monkeypatch.setattr(train_command, "fit", fake)
    monkeypatch.setattr(search_module.results, "draw", lambda study, folder: [])
    return fake


def raising(error):
    def act():
        raise error

    return [act]
