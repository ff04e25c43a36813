"""For the search's tests: the command in this process, and training replaced by arithmetic."""

import json

from fastres import train
from fastres.errors import run_command
from fastres.search import __main__ as search_module
from fastres.search.trials import library
from tests.conftest import TINY_FILE


def search(packed, out, *extra, code=0):
    """The command in this process; `out` is its folder."""
    arguments = ["--schedule", str(TINY_FILE), "--data", str(packed), "--out", str(out), "--device", "cpu"]
    assert run_command(lambda: search_module.main([*arguments, *map(str, extra)])) == code


def trials_in(out):
    """All trials of the search in a folder."""
    return library().load_study(study_name="search", storage=f"sqlite:///{out / 'search.db'}").trials


def arithmetic(monkeypatch):
    """train.main replaced by arithmetic: the error is what the settings say; what raises is chosen by the test."""
    calls = []

    def fake(argv):
        args = train.parser().parse_args(argv)
        schedule = train.resolve(args)
        calls.append((args.run_dir, schedule))
        args.run_dir.mkdir(exist_ok=True)
        for act in fake.acts.pop(len(calls) - 1, ()):
            act()
        error = 1000 * abs(schedule.optimizer.lr - 0.05)
        summary = {"stages": [{"val_top1_err": error}], "train_s": 1.0, "count": 400}
        (args.run_dir / "summary.json").write_text(json.dumps(summary))
        return 0

    fake.calls, fake.acts = calls, {}
    monkeypatch.setattr(train, "main", fake)
    monkeypatch.setattr(search_module.results, "draw", lambda study, folder: [])
    return fake


def raising(error):
    def act():
        raise error

    return [act]
