"""`fastres gpu`: what its results are called, and that no task's end costs another one its figures."""

import json
import sys
from pathlib import Path

import pytest

from fastres.bench.gpu import command, verdicts
from fastres.bench.gpu.tasks import PARTS, Task, tasks
from fastres.bench.gpu.verdicts import Verdict
from fastres.bench.steps import KINDS
from fastres.machine.command import run_command
from fastres.machine.errors import MachineError, UsageError


def row(name: str, rate: float, ours: bool) -> dict:
    return {"mode": "m", "name": name, "ours": ours, "dtype": "bf16", "img_per_s": rate}


@pytest.mark.parametrize(
    ("rows", "floor", "verdict"),
    [
        ([row("fastres eager", 30.0, True), row("loop", 20.0, False)], 100, Verdict("m", "works", 30.0, 0.3, 1.5)),
        ([row("fastres eager", 19.0, True), row("loop", 20.0, False)], None, Verdict("m", "slow", 19.0, None, 0.95)),
        ([row("fastres eager", 30.0, True), row("loop", 20.0, False)], 150, Verdict("m", "slow", 30.0, 0.2, 1.5)),
        ([row("fastres eager", 30.0, True)], None, Verdict("m", "works", 30.0)),
        ([row("loop", 20.0, False)], 100, Verdict("m", "failed")),
    ],
)
def test_a_benchs_verdict(tmp_path, rows, floor, verdict):
    left_out = "m: fastres captured left out: RuntimeError: no"
    result = {"rows": rows, "floors": {"m": floor} if floor else {}, "skipped": [left_out, "m: timm left out: no"]}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (found,) = verdicts.of_bench(tmp_path)
    assert found._replace(because="") == verdict
    assert left_out in found.because and "timm" not in found.because


@pytest.mark.parametrize(
    ("cases", "verdict", "words"),
    [
        ('<testcase name="a"/><testcase name="b"><skipped/></testcase>', "works", "1 passed, 1 skipped"),
        ('<testcase name="a"><failure/></testcase><testcase name="b"/>', "wrong", "a"),
        ('<testcase name="a"><error/></testcase>', "wrong", "a"),
        ('<testcase name="a"><skipped/></testcase>', "not run", "all 1 skipped: they need a GPU"),
        ("", "not run", "all 0 skipped"),
    ],
)
def test_the_tests_verdict(tmp_path, cases, verdict, words):
    (tmp_path / "result.xml").write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    (found,) = verdicts.of_tests(tmp_path)
    assert found.verdict == verdict and found.because.startswith(words)


@pytest.mark.parametrize(("error", "verdict"), [(60.0, "works"), (99.5, "wrong")])
def test_a_run_that_learned_nothing_is_wrong(tmp_path, error, verdict):
    stages = [{"name": "fc", "epochs": 1, "img_per_s": 300.0}, {"name": "all", "epochs": 3, "img_per_s": 100.0}]
    summary = {"stages": stages, "errors": {"expsum": {"12-crop": {"top1": error}}}, "cold_s": 12.3}
    (tmp_path / "result.json").write_text(json.dumps({"rows": [summary]}))
    (found,) = verdicts.of_run(tmp_path)
    assert found.verdict == verdict and found.because.startswith("12 s from a cold start; fc 300, all 100 img/s")
    assert found.img_per_s == pytest.approx(4 / (1 / 300 + 3 / 100))


def task(name: str, code: str, limit_s: float = 60, needs: Path | None = None, part: str = "views") -> Task:
    """A process that runs `code`, with its folder as `out`."""
    program = f"import sys, time, pathlib; out = pathlib.Path(sys.argv[1]); {code}"
    return Task(part, name, ("-c", program, "{out}"), limit_s, verdicts.of_bench, needs)


GOOD = f"(out / 'result.json').write_text('''{json.dumps({'rows': [row('fastres', 5.0, True)], 'ratios': {}})}''')"


@pytest.mark.parametrize(
    ("made", "verdict", "words"),
    [
        (task("t", GOOD), "works", "fastres bf16"),
        (task("t", f"{GOOD}; sys.exit(4)"), "works", "fastres bf16"),  # a bench that shows all, and then what failed
        (task("t", "print('error: no kernel'); sys.exit(4)"), "failed", "exit code 4: error: no kernel"),
        (task("t", "print(f'error: {out}/x is bad'); sys.exit(4)"), "failed", "exit code 4: error: <out>/x is bad"),
        (task("t", "time.sleep(60)", limit_s=0.5), "failed", "not over after 0 s"),
        (task("t", "(out / 'result.json').write_text('{')"), "failed", "its result cannot be read (JSONDecodeError"),
        (task("t", "pass"), "failed", "its result cannot be read (FileNotFoundError"),
        (task("t", "pass", needs=Path("/no/tests")), "not run", "needs the project's tests, which is not installed"),
    ],
)
def test_a_tasks_end(tmp_path, made, verdict, words):
    found = command.run(made, tmp_path / "out")
    ((_, said, *_, because),) = found["verdicts"]
    assert said == verdict and because.startswith(words)


def standing_in(monkeypatch, *made: Task) -> None:
    monkeypatch.setattr(command, "tasks", lambda *_: list(made))


def main(out: Path, *extra: str) -> int:
    return run_command(lambda: command.main(["--device", "cpu", "--small", "--out", str(out), *extra]))


def test_the_same_command_goes_on_with_what_is_missing(tmp_path, monkeypatch, capsys):
    count = f"(out / '..' / 'runs').open('a').write('x'); {GOOD}"
    flaky = f"sys.exit(1) if not (out / '..' / 'there').exists() else ({GOOD})"
    standing_in(monkeypatch, task("good", count), task("bad", flaky))
    assert main(tmp_path / "gpu") == 4
    said = capsys.readouterr()
    assert "bad: failed: see the table above" in said.err and "exit code 1" in said.out and "works" in said.out
    (tmp_path / "gpu" / "there").touch()
    assert main(tmp_path / "gpu", "--record", str(tmp_path / "runs")) == 0
    said = capsys.readouterr()
    assert "good: done before" in said.err and (tmp_path / "gpu" / "runs").read_text() == "x"
    assert main(tmp_path / "gpu", "--again") == 0 and (tmp_path / "gpu" / "runs").read_text() == "xx"
    kept = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    kept["machine"]["libraries"]["torch"] = "1.0"
    (tmp_path / "gpu" / "gpu.json").write_text(json.dumps(kept))
    assert main(tmp_path / "gpu") == 0 and (tmp_path / "gpu" / "runs").read_text() == "xxx", "another torch"
    (folder,) = (tmp_path / "runs").iterdir()
    assert "works" in (folder / "table.md").read_text()
    assert str(tmp_path) not in (folder / "gpu.json").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"machine": 1, "precision": 2, "small": 3, "tasks": 4}'])
def test_figures_of_before_that_cannot_be_read_are_measured_anew(tmp_path, monkeypatch, text):
    standing_in(monkeypatch, task("good", GOOD))
    (tmp_path / "gpu.json").write_text(text)
    assert main(tmp_path) == 0 and json.loads((tmp_path / "gpu.json").read_text())["tasks"]["good"]["verdicts"]


def test_what_it_is_asked_must_be_there(monkeypatch):
    with pytest.raises(UsageError, match="--parts gpu: unknown, expected some of views, tests, steps, run"):
        command.main(["--parts", "gpu"])
    with pytest.raises(MachineError, match="no GPU here; --device cpu --small"):
        command.main(["--device", "cpu"])


def test_every_part_has_its_tasks():
    for small in (True, False):
        planned = tasks("cuda:0", "bf16", small)
        assert list(dict.fromkeys(t.part for t in planned)) == list(PARTS)
        assert len({t.name for t in planned}) == len(planned)
        assert [t.name for t in planned if t.part == "steps"] == [f"steps-{kind}" for kind in KINDS]
        assert all(
            t.words(Path("o"))[0] == sys.executable and "{out}" not in " ".join(t.words(Path("o"))) for t in planned
        )
    assert sum(t.limit_s for t in tasks("cuda:0", "bf16", False)) < 2000


@pytest.mark.slow
def test_the_steps_for_real(tmp_path):
    assert main(tmp_path, "--parts", "steps") == 0
    kept = json.loads((tmp_path / "gpu.json").read_text())["tasks"]
    assert list(kept) == [f"steps-{kind}" for kind in KINDS]
    assert all(t["verdicts"][0][1] in ("works", "slow") and t["result"]["rows"] for t in kept.values())
