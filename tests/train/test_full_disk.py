"""Fault 26 on a real disk that is really full: a small tmpfs under the run folder, in a mount namespace of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastres.model.reading import read_weights
from tests.conftest import TINY_FILE

ROOT = Path(__file__).parents[2]
EPOCHS = 12  # of the second stage: its lines of the log need more than the file's last page has room for

# Trains; when the second stage begins it fills the disk but for `leave` bytes, when the third begins it frees it.
DRIVER = """
import sys
from pathlib import Path
from fastres.train import command, run
from fastres.machine.command import run_command

disk, leave, arguments = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
begin, filler = run.Run.begin_stage, disk / "filler"

def fill():
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096: pass
        except OSError as error:
            assert error.errno == 28, error
        file.truncate(file.tell() - leave)

def begin_stage(self, index):
    self.writer.wait()
    if index == 1 and not filler.exists():
        fill()
    if index == 2:
        filler.unlink(missing_ok=True)
    return begin(self, index)

run.Run.begin_stage = begin_stage
sys.exit(run_command(lambda: command.main(arguments)))
"""


def training(packed: Path, folder: Path) -> list[str]:
    return [
        "--schedule",
        str(TINY_FILE),
        "--data",
        str(packed),
        "--run-dir",
        str(folder),
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--wandb",
        "off",
        "--set",
        f"stages.1.epochs={EPOCHS}",
    ]


@pytest.fixture(scope="module")
def reference(packed, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The weights of the same run where there is room."""
    folder = tmp_path_factory.mktemp("roomy") / "run"
    subprocess.run([sys.executable, "-m", "fastres.train", *training(packed, folder)], cwd=ROOT, check=True)
    return read_weights(folder / "final.safetensors")


def on_a_full_disk(packed, tmp_path, leave: int, after: str) -> tuple[int, str, Path]:
    """Exit code of the first command, what was said, and the weights that lay there in the end.

    `after` is what the shell does then; {disk} is the disk's folder, {train} the command without the filling.
    """
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    (tmp_path / "driver.py").write_text(DRIVER)
    words = " ".join(training(packed, disk / "run"))
    train = f"{sys.executable} {tmp_path / 'driver.py'} {disk} {leave} {words}"
    after = after.format(disk=disk, train=f"{sys.executable} -m fastres.train {words}")
    script = (
        f"mount -t tmpfs -o size=16m none {disk} || exit 99; {train}; code=$?; {after}; "
        f"cp {disk}/run/final.safetensors {kept}; ls -A {disk}/run >&2; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode in (1, 99) and "fastres" not in done.stderr + done.stdout and "stage" not in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr, kept / "final.safetensors"


def assert_the_same(ours: Path, reference: dict[str, torch.Tensor]) -> None:
    weights = read_weights(ours)
    assert all(torch.equal(weights[name], value) for name, value in reference.items())


@pytest.mark.fault(26)
@pytest.mark.slow
def test_room_for_the_log_alone_costs_nothing_but_checkpoints(packed, tmp_path, reference):
    code, said, weights = on_a_full_disk(packed, tmp_path, leave=64 * 1024, after="true")
    assert code == 0, said
    assert said.count("checkpoint not written") == EPOCHS and "No space left on device" in said
    assert "the run goes on" in said and "fastres-tmp" not in said
    assert_the_same(weights, reference)


@pytest.mark.fault(26)
@pytest.mark.slow
def test_no_room_at_all_is_exit_4_and_the_same_command_goes_on_once_there_is(packed, tmp_path, reference):
    code, said, weights = on_a_full_disk(packed, tmp_path, leave=0, after="rm {disk}/filler; {train} || code=1")
    assert code == 4, said
    assert "log.jsonl" in said and "the same command resumes" in said
    assert "resuming in stage 2" in said or "taken over" in said, said
    assert_the_same(weights, reference)
