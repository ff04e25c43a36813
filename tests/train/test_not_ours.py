"""What is not ours is never written: a folder that is no run's, links and pipes under the names that a run writes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from fastres.machine.command import run_command
from fastres.machine.errors import UsageError
from fastres.track.run_dir import RunDir
from fastres.train import command
from tests.conftest import TINY, TINY_FILE
from tests.support.tiny_runs import stop_after, train_tiny

CONFIG = {"schedule": {"name": "x"}, "seed": 0, "content_digest": "0"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "name",
    ["log.jsonl", "summary.json", "final.safetensors", "checkpoints/mine.pt", "pictures/cat.png", "notes.txt", "lock"],
)
def test_a_folder_that_is_no_runs_is_refused_before_anything_is_written(packed, tmp_path, capsys, name):
    folder = tmp_path / "run"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine, not a process's number\n")
    before = content(folder)
    command_line = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", folder, "--wandb", "off"]
    assert run_command(lambda: command.main([str(word) for word in command_line])) == 2
    said = capsys.readouterr().err
    assert content(folder) == before and len(list(folder.iterdir())) == 1
    assert f"holds {name.split('/')[0]}, but no config.json" in said and said.count("\n") == 1


@pytest.mark.fault(37)
@pytest.mark.parametrize("config", ['{"mine": 1}', '{"seed": 0}', "[1]", "not JSON", "[" * 100_000, "\udcff"])
def test_a_config_that_is_no_runs_is_refused_before_anything_is_written(packed, tmp_path, capsys, config):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes(config.encode(errors="surrogateescape"))
    code = run_command(lambda: RunDir.open(folder, CONFIG))
    said = capsys.readouterr().err
    assert code in (2, 3) and said.count("\n") == 1 and "another --run-dir" in said and "remove" not in said
    assert os.listdir(folder) == ["config.json"]


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "left", [(), ("lock",), ("out.txt",), (".config.json.12.fastres-tmp", "lock"), ("checkpoints/",)]
)
def test_what_a_first_moment_leaves_is_no_obstacle(tmp_path, left):
    """A lock, a temporary file, the empty file that a shell made for the output, empty folders."""
    for name in left:
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else path.write_text("4711\n" if name == "lock" else "")
    RunDir.open(tmp_path, CONFIG).close()
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


@pytest.mark.fault(37)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["lock", "log.jsonl", "summary.json"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_no_link_is_written_through_and_no_pipe_is_waited_for(packed, tmp_path, monkeypatch, capsys, name, kind):
    folder, mine = tmp_path / "run", tmp_path / "mine.txt"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        train_tiny(packed, folder, code=75)
    mine.write_text("mine\n")
    (folder / name).unlink()
    (folder / name).symlink_to(mine) if kind == "link" else os.mkfifo(folder / name)
    capsys.readouterr()
    command_line = ["--schedule", TINY_FILE, "--data", packed, "--run-dir", folder, "--wandb", "off"]
    code = run_command(lambda: command.main([str(word) for word in command_line]))
    said = capsys.readouterr().err
    assert mine.read_text() == "mine\n"
    assert code in (3, 4) and str(folder) in said and said.count("error: ") == 1


@pytest.mark.fault(37)
def test_an_empty_name_is_no_folder(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in ("--run-dir", "--data", "--start-from"):
        with pytest.raises(SystemExit) as ended:
            command.main(["--schedule", str(TINY_FILE), "--data", str(packed), option, ""])
        assert ended.value.code == 2 and f"argument {option}: is empty" in capsys.readouterr().err
    train_tiny(packed, tmp_path / "run", "--weights", "", code=2)
    assert "--weights: is empty" in capsys.readouterr().err and not os.listdir(tmp_path)


@pytest.mark.fault(37)
@pytest.mark.parametrize(
    "name",
    ["", "a/b", "../up", "..", ".hidden", "-rf", "a\0b", "a\nb", "\udcff", " a", "x" * 200, 7, "a\\b", "\x1b[2J"],
)
def test_a_schedules_name_leads_nowhere(name):
    with pytest.raises(UsageError, match="name is"):
        replace(TINY, name=name)
    assert replace(TINY, name="résumé of 2024 (b)").name


@pytest.mark.fault(37)
@pytest.mark.parametrize("name", ["lock", "log.jsonl", "config.json"])
def test_a_live_process_is_told_from_a_folder_that_is_no_runs(tmp_path, name):
    """What another process writes in its first moments is all a run's."""
    with RunDir.open(tmp_path, CONFIG), pytest.raises(UsageError, match=f"pid {os.getpid()}"):
        RunDir.open(tmp_path, CONFIG)
