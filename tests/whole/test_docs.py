"""README and fastres/docs hold: links lead somewhere, and every command is one that its program takes."""

import re

import pytest

from tests.support.docs_commands import ROOT, commands, pages, parse

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_its_program_takes(page, monkeypatch):
    assert commands(page), "found no command at all"
    for command in commands(page):
        parse(command, monkeypatch)


def test_a_wrong_command_does_not_parse(monkeypatch, capsys):
    for command in (
        "python -m fastres.train --shedule paper",
        "python preprocess/pack.py --sides 3",
        "torchrun --nproc-per-node 2 -m fastres.train --no",
        "python -m fastres.predict",
        "python -m fastres export --onnx",
        "fastres search --trails 3",
    ):
        with pytest.raises(SystemExit) as stop:
            parse(command, monkeypatch)
        assert stop.value.code == 2
    for command in ("make tea", "fastres tea", "python -m fastres tea"):
        with pytest.raises(AssertionError):
            parse(command, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_inline_command_goes_over_the_end_of_a_line(page):
    """Nobody could copy it, and the parser above would not see it."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    assert not [line for line in prose.splitlines() if line.count("`") % 2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:fastres|preprocess|tests)/[\w/]+\.(?:py|json|md))`", page.read_text()):
        assert (ROOT / path).is_file(), path
