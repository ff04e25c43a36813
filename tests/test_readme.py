"""The README says what the records say, and its commands exist."""

import re
from pathlib import Path

from fastres.bench.run import readme_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_results_table_is_the_records():
    shown = README.partition("<!-- results -->\n")[2].partition("\n<!-- end of results -->")[0]
    assert shown == readme_table(ROOT / "runs" / "results.csv")


def test_every_picture_and_file_it_names_exists():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file(), path
    for room in re.findall(r"^\| `(fastres/[^`]*|preprocess/|runs/|tests/)`", README, re.M):
        assert (ROOT / room).exists(), room


def test_make_targets_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_python_modules_it_names_have_help(capsys):
    """Every `python -m fastres.X` of the README answers --help."""
    import importlib

    import pytest

    for module in sorted(set(re.findall(r"python -m (fastres\.[a-z_.]+)", README))):
        found = importlib.import_module(module)
        main = (importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found).main
        try:
            assert main(["--help"]) == 0
        except SystemExit as stop:
            assert stop.code == 0
        assert module in capsys.readouterr().out or pytest.fail(module)
