"""A machine without a working compiler: Triton's launches and torch.compile end in a sentence and exit code 4, and the
doctor says so before. Triton's own build of C is tried, with the compilers that a machine may have."""

import subprocess
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastres import views
from fastres.evaluate import scores as scores_module
from fastres.machine import checks, compilers
from fastres.machine.compilers import CompilerMissing, compiler_fault, compiler_needed
from fastres.machine.device import Precision
from fastres.model import fold
from fastres.model.network import Architecture, build
from fastres.schedules.types import Schedule, Stage
from fastres.stage import step as step_module
from fastres.stage.captured import CapturedStep
from fastres.stage.stage_step import stage_step
from fastres.train import command as train_command
from fastres.views import triton_views
from fastres.views.geometry import Geometry
from tests.support.tiny_runs import train_tiny
from tests.support.view_plans import bytes_of, plan_of

HEADERLESS = """#!/bin/bash
# a machine with gcc and without python3-dev
kept=()
for word in "$@"; do [[ $word == -I*/include/python3* ]] || kept+=("$word"); done
exec {compiler} "${{kept[@]}}"
"""
FAULTS = {"missing": "cannot be run", "failing": "ended with exit code 1", "headerless": "ended with exit code 1"}


def compiler(kind: str, folder: Path, real: str = "gcc") -> str:
    """A program for CC or CXX."""
    if kind != "headerless":
        return {"missing": str(folder / "nowhere"), "failing": "false"}[kind]
    program = folder / "headerless"
    program.write_text(HEADERLESS.format(compiler=real))
    program.chmod(0o755)
    return str(program)


def forget_the_compiler(build) -> None:
    """Triton's newer versions look for it once in a process."""
    getattr(getattr(build, "_find_compiler", None), "cache_clear", lambda: None)()


def launch_with(monkeypatch, folder: Path, kind: str) -> None:
    """Views through Triton on this machine, as far as a launch's first act on a GPU: its C is compiled with this CC."""
    build = pytest.importorskip("triton.runtime.build", reason="Triton is not installed")
    monkeypatch.setenv("CC", compiler(kind, folder))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))

    def launch(*_) -> None:
        forget_the_compiler(build)
        try:
            build.compile_module_from_src(compilers.C_MODULE, "probe")
        finally:
            forget_the_compiler(build)

    monkeypatch.setattr(triton_views, "check_device", lambda device: None)
    monkeypatch.setattr(triton_views, "_launch", launch)
    monkeypatch.setattr(views, "_triton_works", True)
    chosen = views.chosen
    monkeypatch.setattr(views, "chosen", lambda plan, _: chosen(plan, torch.device("cuda")))


@pytest.mark.parametrize("kind", FAULTS)
def test_tritons_launch_without_a_compiler_is_a_sentence(kind, tmp_path, monkeypatch):
    launch_with(monkeypatch, tmp_path, kind)
    images, rows = bytes_of(2, 16), torch.arange(2)
    for what in "train", "test":
        with pytest.raises(CompilerMissing, match="needs a C compiler and Python.h") as caught:
            views.apply(images, rows, rows, plan_of(what, Geometry(16, 1), impl="triton"))
        assert caught.value.exit_code == 4 and FAULTS[kind] in str(caught.value)
        assert "apt-get install gcc python3-dev" in str(caught.value) and "\n" not in str(caught.value)


def test_where_auto_chose_triton_torch_makes_the_views_and_says_so_once(tmp_path, monkeypatch, capsys):
    launch_with(monkeypatch, tmp_path, "missing")
    images, rows = bytes_of(3, 16), torch.arange(3)
    plan = plan_of("train", Geometry(16, 2), impl="auto")
    truth = views.apply(images, rows, rows, replace(plan, settings=replace(plan.settings, impl="torch")))
    for _ in range(2):
        assert torch.equal(views.apply(images, rows, rows, plan), truth)
    said = capsys.readouterr().err
    assert said.count("warning: views.impl triton needs a C compiler") == 1 and "torch makes the views now" in said


def test_a_captured_step_never_takes_other_views(tmp_path, monkeypatch):
    """It cannot record torch's: the run ends with the sentence instead."""
    asked, batch = [], SimpleNamespace(ids=torch.arange(2), images=None, rows=None, labels=torch.zeros(2))
    monkeypatch.setattr(
        step_module.views, "apply", lambda images, rows, ids, plan, **_: asked.append(plan.settings.impl)
    )
    step = object.__new__(CapturedStep)
    step._inputs, step._classes = {}, 4
    for impl in "auto", "torch":
        step._examples(batch, plan_of("train", Geometry(16, 1), impl=impl))
    assert asked == ["triton", "torch"]


def without_compiler(form):
    """What torch.compile's form does on such a machine, in torch's words."""

    class Form(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("No working C++ compiler found in torch._inductor.config.cpp.cxx: (None, 'g++')")

    return Form()


def test_a_compiled_step_without_a_compiler_is_a_sentence(monkeypatch):
    monkeypatch.setattr(step_module, "compiled", without_compiler)
    network, stage = build(Architecture("resnet18", 8, 4)), Stage(name="fc", epochs=1, train=("fc.*",), upscale=1)
    schedule = Schedule(name="one", stages=(stage,), step="compiled")
    step = stage_step(network, stage, schedule, Precision("fp32", torch.device("cpu")))
    x = torch.ones(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with pytest.raises(CompilerMissing, match=r"step compiled.*No working C\+\+ compiler found.*set CXX"):
        step._update(x, torch.tensor([0, 3]))


def test_a_run_whose_validation_finds_no_compiler_ends_with_4(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(step_module, "compiled", lambda form: form)
    monkeypatch.setattr(scores_module, "compiled", without_compiler)
    asked, one = [], ("--set", "step=compiled", "stages.0.upscale=1")
    monkeypatch.setattr(train_command, "kept_beside", lambda *what: asked.append(what) or nullcontext())
    assert train_tiny(packed, tmp_path / "run", *one, code=4)["status"] == "failed"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: compiled validation") and "No working C++ compiler found" in last
    assert asked == [(packed, True)], "what it compiles is kept beside the data"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_torch_compile_itself_without_a_compiler(tmp_path, monkeypatch):
    """Each compiler as CXX would name it; torch reads that once in a process."""
    from torch._inductor import config, cpp_builder

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    for kind, said in ("missing", "No working"), ("headerless", "Python.h"):
        program = compiler(kind, tmp_path, "g++")
        cpp_builder.cpp_compiler_search.cache_clear()
        torch._dynamo.reset()
        patched, refused = config.patch({"cpp.cxx": (None, program)}), pytest.raises(CompilerMissing, match=said)
        with patched, refused, fold.compiling("step compiled"):
            fold.compiled(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()))(torch.ones(4, 3))
    cpp_builder.cpp_compiler_search.cache_clear()
    torch._dynamo.reset()


def test_other_faults_keep_their_names(tmp_path):
    for error in (FileNotFoundError(2, "gone", "gccs.npy"), RuntimeError("sizes differ"), IndexError("3 rows")):
        assert compiler_fault(error) is None
        with pytest.raises(type(error)), compiler_needed("it needs", "do this"):
            raise error
    assert compiler_fault(subprocess.CalledProcessError(1, ["nvidia-smi", "-q"])) is None


@pytest.mark.parametrize("kind", [None, *FAULTS])
def test_the_doctor_tries_both_compilers(kind, tmp_path, monkeypatch):
    if kind:
        monkeypatch.setenv("CC", compiler(kind, tmp_path))
        monkeypatch.setenv("CXX", compiler(kind, tmp_path, "g++"))
    found = [checks._compiler(*row) for row in compilers.PROBES]
    assert [finding.what for finding in found] == ["C compiler", "C++ compiler"]
    for finding, package in zip(found, ("gcc", "g++")):
        assert finding.state == ("gap" if kind else "ok")
        assert (f"apt-get install {package} python3-dev" in finding.remedy) == bool(kind)
        assert kind != "headerless" or "Python.h" in finding.found
