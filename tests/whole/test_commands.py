"""fastres NAME ...: the list of commands, and the way to each of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastres import __main__ as dispatcher
from fastres import __version__
from fastres.__main__ import COMMANDS, console, main
from tests.support.docs_commands import DOCS, ROOT


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_it_lists_every_command_with_a_line_each(argv, capsys):
    assert main(argv) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, what) in COMMANDS.items():
        assert [line for line in lines if line.split() == [name, *what.split()]], name
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("evalute", "evaluate"), ("docter", "doctor")])
def test_an_unknown_command_is_answered_with_the_nearest(typed, meant, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fastres", typed])
    assert console() == 2
    assert f"fastres {typed}: no such command; did you mean {meant}?" in capsys.readouterr().err


def test_a_command_like_no_other_is_answered_with_all(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["fastres", "qqq"])
    assert console() == 2
    said = capsys.readouterr().err
    assert "did you mean" not in said and all(name in said for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name, capsys):
    try:
        assert main([name, "--help"]) == 0
    except SystemExit as stop:
        assert stop.code == 0
    said = capsys.readouterr().out
    shown = {"pack": "pack.py"}.get(name, rf"fastres[ .]{name}")
    assert re.search(rf"(usage: |python -m |^){shown}\b", said), said[:200]


def test_arguments_and_the_code_are_the_commands_own(monkeypatch):
    """Whatever its `main` gives back."""
    given = []
    monkeypatch.setattr("fastres.track.show.main", lambda argv: given.append(argv) or 4)
    monkeypatch.setattr("sys.argv", ["fastres", "show", "run", "--watch"])
    assert console() == 4 and given == [["run", "--watch"]]


SETUP = """
import runpy, sys, types
tools = types.ModuleType("setuptools")
tools.setup, tools.find_packages = lambda **settings: print(settings["version"]), lambda **_: []
sys.modules["setuptools"] = tools
runpy.run_path(sys.argv[1])
sys.exit("fastres" in sys.modules or "torch" in sys.modules)
"""


def test_the_version_is_that_of_setup_py_and_of_the_newest_entry_of_the_changes(capsys):
    """setup.py reads it without an import of fastres: pip builds where nothing is installed."""
    setup = subprocess.run([sys.executable, "-c", SETUP, ROOT / "setup.py"], capture_output=True, text=True, check=True)
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert setup.stdout.strip() == newest == __version__
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"fastres {__version__}\n"


def test_the_wheel_has_the_console_script():
    entry = re.search(r'"console_scripts": \["fastres = ([\w.]+):(\w+)"\]', (ROOT / "setup.py").read_text())
    assert entry and entry[1] == dispatcher.__name__ and getattr(dispatcher, entry[2]) is console


def test_the_page_lists_the_same_commands():
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", (DOCS / "commands.md").read_text(), re.M)
    assert dict(rows) == {name: what for name, (_, what) in COMMANDS.items()}


def test_their_files_exist():
    for module, _ in COMMANDS.values():
        assert Path(ROOT / (module.replace(".", "/") + ".py")).is_file(), module
