"""README and fastres/docs hold: links lead somewhere, and every command is one that its program takes."""

import re

import pytest

from tests.docs_commands import ROOT, commands, pages, parse

PAGES = pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_its_program_takes(page, monkeypatch):
    assert commands(page), "found no command at all"
    for command in commands(page):
        parse(command, monkeypatch)


def test_a_wrong_command_does_not_parse(monkeypatch, capsys):
    for command in ("python -m fastres.train --shedule paper", "python preprocess/pack.py --sides 3",
                    "torchrun --nproc-per-node 2 -m fastres.train --no", "python -m fastres.predict"):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            parse(command, monkeypatch)
        assert stop.value.code == 2
    with pytest.raises(AssertionError):
        parse("make tea", monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:fastres|preprocess|tests)/[\w/]+\.(?:py|json|md))`", page.read_text()):
        assert (ROOT / path).is_file(), path
