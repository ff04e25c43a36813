"""Runs, numbers and files that a study or a search cannot use: a sentence, or a page without them."""

import os

import pytest

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.study import __main__ as study
from fastres.track import show
from tests.evaluate.test_outputs import WEIGHTS, refused, run  # noqa: F401 - a fixture
from tests.support.tiny_runs import train_tiny


def ends(main, *words) -> int:
    return run_command(lambda: main([str(word) for word in words]))


@pytest.mark.slow
@pytest.mark.fault(43)
@pytest.mark.parametrize("log", [None, "", '{"event": "st', "[1, 2]\n"])
def test_a_study_of_a_run_without_epochs_is_one_sentence(packed, tmp_path, capsys, log):
    train_tiny(packed, tmp_path / "run", "--precision", "fp32")
    (tmp_path / "run" / "log.jsonl").unlink()
    if log is not None:
        (tmp_path / "run" / "log.jsonl").write_text(log)
    capsys.readouterr()
    code = ends(study.main, "--figures", tmp_path / "run", "--out", tmp_path / "figures")
    said = capsys.readouterr().err
    assert code in (0, 3) and "Traceback" not in said and said.count("error: ") == (code == 3)


@pytest.mark.fault(43)
@pytest.mark.parametrize("number", ["nan", "inf", "1e400", "-1", "0", "99999999999999999999"])
def test_numbers_that_make_no_sense(packed, tmp_path, capsys, number):
    whole = "--small-world", "--data", packed, "--schedules", "naive-fc", "--dry-run", "--out", tmp_path / "s"
    commands = [(study.main, *whole, "--scale", number), (show.main, tmp_path, "--watch", "--every", number)]
    if number.lstrip("-").isdigit():
        commands += [(study.main, *whole, "--seeds", number), (study.main, *whole, "--jobs", number)]
    for main, *words in commands:
        assert ends(main, *words) == 2
        assert "expected" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.fault(43)
def test_a_run_in_a_folder_that_is_no_text(packed, tmp_path):
    """A path of bytes that are not UTF-8; the page shows them escaped."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    train_tiny(packed, folder / "run")
    assert ends(study.main, "--figures", folder / "run", "--out", folder / "figures") == 0
    assert (folder / "figures" / "report.html").read_bytes().startswith(b"<!doctype html>")


@pytest.mark.fault(42)
def test_a_searchs_file_that_is_a_link(tmp_path):
    optuna = pytest.importorskip("optuna")
    from fastres.study.search.storage import open_storage

    (tmp_path / "search.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(UsageError, match="is a symbolic link"):
        open_storage(tmp_path / "search.db")
    assert optuna and not (tmp_path / "elsewhere.db").exists()
