"""What two processes share, looked at in the moment between two looks: each test makes that moment happen."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import preprocess.sources.download as downloading
import preprocess.staging as staging
from fastres.machine import files, folders, kept_code
from fastres.machine import lock as lock_module
from fastres.machine.errors import Diverged, FastresError, MachineError, UsageError
from fastres.machine.files import sweep, write_atomic
from fastres.machine.folders import claim
from fastres.machine.kept_code import folder_in, kept_beside
from fastres.machine.lock import Lock
from fastres.machine.processes import distributed
from fastres.machine.processes.distributed import open_world
from fastres.schedules import SCHEDULES
from fastres.stage import step as step_module
from fastres.study.folder import claim_folder, held
from fastres.study.jobs import plan
from fastres.study.search.results import best_of
from fastres.study.search.tune import Rates
from fastres.study.training import work
from fastres.track.run_dir import RunDir, live_process
from fastres.train.endings import noted
from fastres.train.options import Options
from preprocess.owned import refuse_packing_of_others
from tests.conftest import TINY
from tests.support import processes, sharing
from tests.support.study_runs import Over

CONFIG = {"seed": 0, "schedule": {"name": "x"}}


def once(monkeypatch, owner, name, act):
    """`act` comes before the first call of owner.name."""
    real, acts = getattr(owner, name), [act]

    def acting(*given, **named):
        if acts:
            acts.pop()()
        return real(*given, **named)

    monkeypatch.setattr(owner, name, acting)


def test_a_folder_that_was_emptied_is_another_runs(tmp_path):
    """By hand, to start over, while a forgotten run goes on there: the folder is the same, its lock is not."""
    first = RunDir.open(tmp_path / "run", CONFIG)
    for path in first.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with RunDir.open(tmp_path / "run", CONFIG) as second:
        second.write_summary({"status": "done"})
        with pytest.raises(MachineError, match="removed, moved or emptied"):
            first.check_there()
        with pytest.raises(FastresError, match="its end"):
            end_in_a_fault(first)
        assert second.summary() == {"status": "done"} and second.there
    first.close()


def end_in_a_fault(folder):
    folder.forget_summary = lambda: None  # it began long ago
    with noted(folder, TINY, 0, None):
        raise FastresError("its end")


def test_the_process_of_a_run_is_the_kernels(tmp_path):
    """A container's run writes the number it has there; who looks from outside finds another one in the list."""
    with RunDir.open(tmp_path / "run", CONFIG) as run:
        (run.path / "lock").write_text("7\n")
        assert live_process(run.path) == os.getpid()
        (run.path / "lock").write_text("")  # in the moment between emptying and writing it
        assert live_process(run.path) == os.getpid()
    assert live_process(run.path) is None


def test_two_writers_of_one_number_write_both(tmp_path, monkeypatch):
    """Two containers' process 1, or two threads: the second comes while the first waits for its disk."""
    path = tmp_path / "out"
    once(monkeypatch, files.os, "fsync", lambda: write_atomic(path, b"the other's, longer"))
    write_atomic(path, b"ours")
    assert path.read_bytes() == b"ours" and os.listdir(tmp_path) == ["out"]


def test_a_live_writers_temporary_stays(tmp_path, monkeypatch):
    """`show` writes its page into a run's folder while `train` opens it; what a killed one left goes."""
    dead = tmp_path / ".page.html.4194305.0badcafe.fastres-tmp"  # above the kernel's largest number
    old = tmp_path / f".page.html.{os.getpid()}.fastres-tmp"
    for path in (dead, old):
        path.touch()
    os.utime(old, (0, 0))
    once(monkeypatch, files.os, "fsync", lambda: sweep(tmp_path))
    write_atomic(tmp_path / "page.html", b"page")
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_folder_that_another_study_makes_meanwhile_is_a_studys(tmp_path, monkeypatch):
    def other():
        (tmp_path / ".study").touch()
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs/config.json").write_text("{}")

    once(monkeypatch, folders, "strangers", other)
    claim(tmp_path, ".study", "a study's folder")
    with pytest.raises(UsageError, match="holds runs, expected a study"):
        (tmp_path / ".study").unlink()
        claim(tmp_path, ".study", "a study's folder")


def test_one_study_at_a_time_trains_in_a_folder(tmp_path):
    claim_folder(tmp_path)
    with held(tmp_path), pytest.raises(UsageError, match="another study trains in this folder"), held(tmp_path):
        pass
    with held(tmp_path):
        pass


def test_a_packer_that_fails_meanwhile_left_nothing_strange(tmp_path, monkeypatch):
    (tmp_path / ".packing").mkdir()
    once(monkeypatch, Path, "exists", (tmp_path / ".packing").rmdir)  # then its lock
    refuse_packing_of_others(tmp_path, tmp_path / ".packing", staging.LOCK)
    (tmp_path / ".packing").mkdir()
    with pytest.raises(UsageError, match="which the packer did not leave"):
        refuse_packing_of_others(tmp_path, tmp_path / ".packing", staging.LOCK)


def test_a_packers_lock_names_it_alone(tmp_path):
    (tmp_path / staging.LOCK).write_text("4194303000")
    with staging.Staging(tmp_path):
        assert (tmp_path / staging.LOCK).read_text() == str(os.getpid())


def test_a_download_that_another_gave_up_meanwhile_is_begun_anew(tmp_path, monkeypatch):
    """It removed the empty file between our opening it and our locking it."""
    part, target = tmp_path / "a.zip.part", tmp_path / "a.zip"
    once(monkeypatch, lock_module, "take", lambda: (part.unlink(), part.write_bytes(b"a third's")))
    monkeypatch.setattr(downloading._Transfer, "run", lambda self: self.file.write(b", whole"))
    downloading.download(downloading.Archive("http://localhost/a.zip", 16, ""), target)
    assert target.read_bytes() == b"a third's, whole" and not part.exists()


def test_half_a_library_of_a_killed_sharer_is_not_noted(tmp_path):
    """It was killed amid its linking, and the one that shared the folder with it ended well."""
    packed = tmp_path / "packed"
    packed.mkdir(mode=0o755)
    with kept_beside(packed):
        (folder_in(packed) / "whole.so").write_bytes(b"whole")
    with kept_beside(packed):
        (folder_in(packed) / "ours.so").write_bytes(b"ours")
        if (child := os.fork()) == 0:
            with kept_beside(packed):
                (folder_in(packed) / "half.so").write_bytes(b"hal")
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
    with kept_beside(packed):
        left = {path.name for path in folder_in(packed).iterdir() if not path.name.startswith(kept_code.SHARER)}
        assert left == {"whole.so", "lock", "digests.json"}
        (folder_in(packed) / "ours.so").write_bytes(b"ours")
    assert json.loads((folder_in(packed) / "digests.json").read_text()).keys() == {"whole.so", "ours.so"}
    assert not list(folder_in(packed).glob(f"{kept_code.SHARER}*"))


def test_a_run_that_still_saves_for_a_killed_study_is_waited_for(tmp_path, monkeypatch, capsys):
    jobs = plan([SCHEDULES["naive-fc"]], 1, tmp_path / "runs", {"naive-fc": [1]}, images=10)
    lock = Lock(jobs[0].folder / "lock")
    monkeypatch.setattr(work.time, "sleep", lambda _: lock.release())
    begun = []
    done = work.do_all(work.Work(jobs, Options, Rates(None)), lambda *_: begun.append(lock.held) or Over(0))
    assert begun == [False] and [outcome.code for outcome in done] == [0]
    assert capsys.readouterr().err.count("waiting for naive-fc, seed 0") == 1


class SlowAtNewSizes(torch.nn.Module):
    """In place of a compiled form: it takes longer than a collective waits."""

    def __init__(self, form):
        super().__init__()
        self.form, self.sizes = form, set()

    def forward(self, x):
        if len(x) not in self.sizes:
            time.sleep(PATIENCE_S + 3)
        self.sizes.add(len(x))
        return self.form(x)


PATIENCE_S = 5


def uneven(packed: str) -> dict:
    """Two steps of 8 and 7 images: in the second the first process has four images again, the other one has three."""
    distributed.PATIENCE_S = PATIENCE_S
    with open_world("cpu") as world, pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_module, "compiled", SlowAtNewSizes)
        patch.setattr(sharing, "EagerStep", step_module.CompiledStep)
        made = sharing.trained(world, packed, ("*",), 15, sync_bn=False)
        patch.setattr(sharing, "EagerStep", step_module.EagerStep)
        return {"compiled": made, "eager": sharing.trained(world, packed, ("*",), 15, sync_bn=False)}


@pytest.mark.slow
def test_one_that_compiles_alone_is_not_taken_for_dead(packed):
    for found in processes.together(2, uneven, str(packed)):
        for name, value in found["eager"].items():
            assert np.allclose(found["compiled"][name], value, rtol=1e-3, atol=1e-6), name


def optuna_study():
    optuna = pytest.importorskip("optuna")
    return optuna, optuna.create_study(direction="minimize")


def test_a_trial_that_optuna_has_no_error_of_has_not_ended():
    from fastres.study.search.trials import ended_trials

    _, study = optuna_study()
    trial = study.ask()
    trial.set_user_attr("ended", "done")
    assert ended_trials(study) == []
    study.tell(trial, 3.0)
    assert [one.value for one in ended_trials(study)] == [3.0]


def test_a_search_whose_rates_all_diverge_says_so_after_a_stop_too():
    """A trial that was stopped once is left as failed; nobody is at it."""
    optuna, study = optuna_study()
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    trial = study.ask()
    trial.set_user_attr("ended", "diverged")
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    with pytest.raises(Diverged, match="none of 1 trials"):
        best_of(study, TINY, 3)
