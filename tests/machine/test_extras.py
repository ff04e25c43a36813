"""A library that is missing: every message names the extra of setup.py that brings it, and there is one for each."""

import re
import shlex
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fastres.data import libraries
from fastres.machine import checks, extras
from fastres.machine.errors import MachineError
from fastres.model import named, onnx_file
from fastres.study.search import trials
from fastres.track import workspace
from tests.support.setup_py import ROOT, settings

IN_SETUP = settings()["extras_require"]
OTHERS = {"dev", "dali-cuda12"}  # what tests need; what `dali` is where torch is built for CUDA 12
ASKED_FOR = {  # by module: what needs it
    "ffcv": lambda: libraries.require("ffcv"),
    "nvidia.dali": lambda: libraries.require("dali"),
    "optuna": trials.library,
    "wandb_workspaces": lambda: workspace.workspace("project", "entity"),
    "timm": lambda: named._timm_configuration("resnet18", "timm:resnet18.a1_in1k"),
    "onnx": lambda: onnx_file.to_onnx(None, None),
    "onnxscript": lambda: onnx_file.to_onnx(None, None),
    "onnxruntime": lambda: onnx_file._session(b""),
}
EXTRA_OF = {module: name for name, extra in extras.EXTRAS.items() for module in extra.modules}


def packages(extra: str) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in IN_SETUP[extra]}


def test_every_extra_of_setup_py_is_known_here():
    assert set(extras.EXTRAS) | OTHERS == set(IN_SETUP)
    assert set(ASKED_FOR) == set(EXTRA_OF)


@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_an_extra_brings_the_modules_that_are_missed(extra):
    brought_by = packages_distributions()
    for module in extras.EXTRAS[extra].modules:
        names = brought_by.get(module.partition(".")[0])
        if names is None:
            pytest.skip(f"{module} is not installed")
        assert {canonicalize_name(name) for name in names} & packages(extra), module


@pytest.mark.parametrize("module", ASKED_FOR)
def test_a_missing_library_is_said_with_its_extra(monkeypatch, module):
    for name in {module, *(known for known in sys.modules if known.startswith(f"{module}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(extras, "built_for_cuda_12", lambda: False)
    monkeypatch.setattr(extras, "installed", lambda package: "1")
    with pytest.raises(MachineError, match=rf"pip install .*'fastres\[{EXTRA_OF[module]}\]'"):
        ASKED_FOR[module]()


def test_the_doctor_names_every_extra(packed, monkeypatch):
    monkeypatch.setattr(checks, "PROBES", ())
    monkeypatch.setattr(checks, "is_here", lambda module: False)
    remedies = " ".join(finding.remedy for finding in checks.examine(packed))
    dali = {"dali", "dali-cuda12"}
    named_there = set(re.findall(r"'fastres\[([a-z0-9-]+)\]'", remedies))
    assert named_there | dali == set(extras.EXTRAS) | dali and named_there & dali


def test_the_line_names_the_checkout_where_fastres_is_not_installed(monkeypatch):
    """pip would look for another package of that name; the line works from whatever folder it is typed in."""
    monkeypatch.setattr(extras, "installed", lambda package: "1")
    assert extras.install_line("timm") == "pip install 'fastres[timm]'"
    monkeypatch.setattr(extras, "installed", lambda package: None)
    assert extras.install_line("timm") == f"pip install -e '{ROOT}[timm]'"
    assert extras.install_line("ffcv").endswith(f"pip install --no-build-isolation -e '{ROOT}[ffcv]'")
    assert (extras.CHECKOUT / "setup.py").is_file()
    monkeypatch.setattr(extras, "CHECKOUT", Path("/home/o'neil/my code"))
    assert shlex.split(extras.install_line("timm")) == ["pip", "install", "-e", "/home/o'neil/my code[timm]"]


def test_no_text_installs_an_extras_package_by_its_own_name():
    """Sources, pages and README: the extra has the versions."""
    lines = re.compile(r"pip install ([^`;\n]*)")
    theirs = set().union(*map(packages, extras.EXTRAS), packages("dali-cuda12"))
    files = [path for room in ("fastres", "preprocess") for path in (ROOT / room).rglob("*.*")]
    for file in (ROOT / "README.md", *(path for path in files if path.suffix in (".py", ".md"))):
        for said in lines.findall(file.read_text()):
            words = re.findall(r"(?<![\[\w.-])[\w][\w.-]*", re.sub(r"\[[^]]*\]", "", said))
            assert not {canonicalize_name(word) for word in words} & theirs, f"{file}: {said}"


def test_the_page_has_a_row_for_every_extra():
    rows = re.findall(r"^\| `([a-z][a-z0-9-]*)` \|", (ROOT / "fastres/docs/installing.md").read_text(), re.M)
    assert set(rows) == set(IN_SETUP) - {"dev"}


def test_the_systems_packages_are_those_of_the_list():
    text = (ROOT / ".ci/system-libraries").read_text()
    assert re.search(r"^needed=\((.+)\)$", text, re.M)[1].split() == list(extras.SYSTEM_PACKAGES)
