"""README is short, says what the records say, and its pictures and pages exist."""

import importlib
import re

import pytest

from fastres.bench.results import readme_table
from tests.support.docs_commands import DOCS, ROOT, pages

README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in pages()}


def test_a_screen_and_a_half():
    lines = README.splitlines()
    assert len(lines) <= 150
    first_screen = "\n".join(lines[:40])
    assert "GPU" in first_screen and "![" in first_screen and "make demo" in first_screen


def test_results_table_is_the_records():
    shown = README.partition("<!-- results -->\n")[2].partition("\n<!-- end of results -->")[0]
    assert shown == readme_table(ROOT / "runs" / "results.csv")


def test_it_leads_to_every_page():
    for page in DOCS.glob("*.md"):
        assert f"(fastres/docs/{page.name})" in README, page.name


@pytest.mark.parametrize("page", PAGES)
def test_sections_that_are_linked_exist(page):
    """`page.md#section`, as GitHub makes it of a heading."""
    for target, section in re.findall(r"\]\(([^)#]*)#([^)]+)\)", PAGES[page]):
        text = PAGES[target.rpartition("/")[2] or page]
        headings = re.findall(r"^#+ (.+)$", text, re.M)
        assert section in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], (target, section)


@pytest.mark.parametrize("page", PAGES)
def test_python_modules_it_names_have_help(page, capsys):
    """Every `python -m fastres.X` answers --help."""
    for module in sorted(set(re.findall(r"python -m (fastres\.[a-z_.]+)", PAGES[page]))):
        found = importlib.import_module(module)
        main = (importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found).main
        try:
            assert main(["--help"]) == 0
        except SystemExit as stop:
            assert stop.code == 0
        assert module in capsys.readouterr().out, module
