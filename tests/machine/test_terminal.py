"""The terminal is not the run: readers that leave, closed and full streams, encodings, control characters, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastres.machine.console import Progress
from fastres.machine.terminal import escaped
from tests.conftest import TINY_FILE

ROOT = Path(__file__).resolve().parents[2]

WORK = """
import sys, time
from pathlib import Path
from fastres.machine.command import run_command
from fastres.machine.console import Progress, say, show_kept

def main():
    for number in range(200):
        say(f"line {number}: " + 200 * "x")
        with Progress(3, "work", lines=True) as progress:
            progress.update(3)
    Path(sys.argv[1]).write_text("done")
    answer = "the answer \\x1b[31mred \\u732b"
    show_kept(answer, Path(sys.argv[1])) if sys.argv[2] == "kept" else print(answer)
    return 0

sys.exit(run_command(main))
"""


def shell(line: str, tmp_path, how: str = "print", **environment) -> subprocess.CompletedProcess:
    """`line` run by bash, in which $WORK is the program; stdout is what the line prints."""
    words = f'"{sys.executable}" -c "$PROGRAM" {tmp_path / "made"} {how}'
    variables = {**os.environ, "PROGRAM": WORK, **environment}
    return subprocess.run(
        ["bash", "-c", line.replace("$WORK", words)],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


LOSE_IT = {
    "a reader of both that leaves": "$WORK 2>&1 | head -1; exit ${PIPESTATUS[0]}",
    "a reader of stderr that leaves": "$WORK 2> >(head -1)",
    "a reader of stdout that leaves": "$WORK 2>/dev/null | true; exit ${PIPESTATUS[0]}",
    "a closed stderr": "$WORK 2>&-",
    "a full stderr": "$WORK 2>/dev/full",
    "all streams closed": "$WORK <&- >&- 2>&-",
    "a closed stdout": "$WORK >&-",
}


@pytest.mark.fault(38)
@pytest.mark.parametrize("line", LOSE_IT.values(), ids=LOSE_IT)
def test_output_that_nobody_takes_changes_nothing(tmp_path, line):
    done = shell(line, tmp_path)
    assert done.returncode == 0 and (tmp_path / "made").read_text() == "done"
    assert "Traceback" not in done.stdout + done.stderr and "Exception" not in done.stdout + done.stderr


@pytest.mark.fault(38)
def test_a_full_stdout_is_a_fault_of_answers_alone(tmp_path):
    """What is kept in a file as well is not lost; a printed answer is, and the exit code says so."""
    lost = shell("$WORK >/dev/full", tmp_path)
    assert lost.returncode == 4 and "standard output could not be written (No space left" in lost.stderr
    kept = shell("$WORK >/dev/full", tmp_path, "kept")
    assert kept.returncode == 0 and f"{tmp_path / 'made'} has the same" in kept.stderr


@pytest.mark.fault(38)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_cannot_be_shown_is_escaped(tmp_path, encoding):
    done = shell("$WORK 2>/dev/null", tmp_path, PYTHONIOENCODING=encoding)
    shown = "\u732b" if encoding == "utf-8" else "\\u732b"
    assert done.returncode == 0 and done.stdout == f"the answer \\x1b[31mred {shown}\n"


@pytest.mark.fault(38)
def test_control_characters_are_written_out():
    assert escaped("a\x1b]0;title\x07b\rc\td\ne\x9bf\u202eg") == "a\\x1b]0;title\\x07b\\rc\td\ne\\x9bf\\u202eg"
    assert escaped("caf\u00e9 \u732b \U0001f600 \u2013") == "caf\u00e9 \u732b \U0001f600 \u2013"


OPEN = """
import os, sys
from fastres.machine.command import run_command

def main():
    with open(sys.argv[1], "w") as file:
        os.write(2, b"a library's warning")
        file.write(str(file.fileno()))
    return 0

sys.exit(run_command(main))
"""


@pytest.mark.fault(38)
def test_no_file_of_ours_takes_the_number_of_a_closed_stream(tmp_path):
    """Whatever a library prints to descriptor 2 would land in it."""
    line = f"'{sys.executable}' -c \"$PROGRAM\" {tmp_path / 'made'} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], cwd=ROOT, env={**os.environ, "PROGRAM": OPEN}).returncode == 0
    assert int((tmp_path / "made").read_text()) > 2


SLEEP = """
import os, signal, sys, time
from fastres.machine.command import run_command

def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned", flush=True)
        time.sleep({cleaning})

sys.exit(run_command(main))
"""


def signalled(command: list, *numbers: int, wait_for: bytes = b"ready\n", gap: float = 0.5) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of a process that gets these signals once it has said `wait_for`."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = process.stdout.readline() if wait_for else b""
    assert said == wait_for
    for number in numbers:
        process.send_signal(number)
        time.sleep(gap)
    out, err = process.communicate(timeout=50)
    return process.returncode, out.decode(), err.decode()


@pytest.mark.fault(45)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_cleans_up_with_a_sentence_and_exit_75(name):
    program = [sys.executable, "-c", SLEEP.format(cleaning=0)]
    code, out, err = signalled(program, getattr(signal, name))
    assert (code, out) == (75, "cleaned\n")
    assert err == f"error: stopped by {name}; the same command starts again where it can\n"


@pytest.mark.fault(45)
def test_a_second_signal_does_not_wait_for_the_cleaning():
    started = time.monotonic()
    code, out, _ = signalled([sys.executable, "-c", SLEEP.format(cleaning=50)], signal.SIGTERM, signal.SIGTERM)
    assert (code, out) == (75, "cleaned\n") and time.monotonic() - started < 30


@pytest.mark.fault(45)
def test_nohup_outlives_a_closed_terminal():
    program = SLEEP.format(cleaning=0).replace("time.sleep(60)", "time.sleep(1)")
    code, out, err = signalled(["nohup", sys.executable, "-c", program], signal.SIGHUP)
    assert (code, out) == (0, "cleaned\n") and "stopped" not in err


COMMANDS = {
    "pack": ["preprocess/pack.py", "--source", "nowhere"],
    **{name: ["-m", f"fastres.{name}"] for name in ("train", "predict", "study")},
    "search": ["-m", "fastres", "search"],
}


def hears(process: subprocess.Popen, number: int) -> bool:
    """Whether a process handles a signal, as the kernel has it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.fault(45)
@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_in_the_first_moments_is_exit_75_with_a_word(name):
    """From before torch is imported on, for some moments."""
    for after in (0, 0.7):
        command = [sys.executable, *COMMANDS[name]]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not hears(process, signal.SIGTERM):
            time.sleep(0.001)
        assert after or "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        time.sleep(after)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=50)
        code = process.returncode
        # it had found its arguments wanting; the interpreter, on its way out, handles no signal any more
        over = code in (2, 3, -signal.SIGTERM) and "error: " in err and "stopped" not in err
        stopped = code == 75 and "Traceback" not in err and "stopped by SIGTERM" in err
        assert over or stopped, (after, code, err)


@pytest.mark.fault(38)
@pytest.mark.slow
def test_a_run_whose_reader_leaves_is_done(packed, tmp_path):
    words = f"{sys.executable} -m fastres.train --schedule {TINY_FILE} --data {packed} --run-dir {tmp_path / 'run'}"
    line = f"{words} --device cpu --wandb off 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1
    assert '"status": "done"' in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.parametrize(("done", "rate"), [(0, "0.05 epoch/s"), (11, "0.05 epoch/s")])
def test_slow_work_has_a_rate_of_its_own(monkeypatch, capsys, done, rate):
    """Units that an earlier command did are no speed of this one, and a unit of minutes is not 0 a second."""
    now = [100.0]
    monkeypatch.setattr("fastres.machine.console.time.monotonic", lambda: now[0])
    with Progress(20, "work", "epoch", done=done, lines=True) as progress:
        for _ in range(4):
            now[0] += 20
            progress.at(progress.done + 1, 20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"work: {done + 1} of 20 ({(done + 1) / 20:.0%}), {(19 - done) * 20} s left, {rate}"
    assert lines[-1] == f"work: {done + 4} epoch in 80.0 s, {rate}"
