"""The mirror on Weights & Biases: it can fail in any way, and the run neither slows down nor stops.

Local files are the truth. Everything W&B does (import, init, log, upload, finish) happens in a child process
(mirror_child.py), so that its threads, its exit hooks and its replaced `sys.exit` never live in the training
process, and so that ending it is one signal. `log` puts a dict on a bounded queue; a daemon thread writes it to
the child's pipe. A full queue drops the oldest point and counts it. When the training process dies, the child
reads the end of the pipe, marks the run as failed and leaves.

Metrics, and the axis that each is drawn over, are in metrics.py; `metrics.point` makes a dict that has both.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from fastres.machine.console import say
from fastres.machine.errors import MachineError, UsageError
from fastres.machine.files import ours
from fastres.machine.login import has_login
from fastres.machine.strict_json import plain
from fastres.track.metrics import definitions
from fastres.track.mirror_folder import note_uploaded, run_id, sync_command
from fastres.track.run_dir import RunDir

MODES = ("online", "offline", "off")
# what W&B's WANDB_MODE may be, in ours
BY_WANDB = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "off", "off": "off"}
QUEUE_LENGTH = 10_000  # points; about 2 MB of text, and half an hour of five points a second
CLOSE_TIMEOUT = 10.0  # seconds to let W&B finish
UPLOAD_TIMEOUT = 300.0  # the same where a model of some 45 MB has to go, which the user asked for


class NoWandb:
    """Takes everything and does nothing: the run is logged to its local files only."""

    mode = "off"

    def log(self, metrics: dict) -> None: ...

    def image(self, key: str, path: Path) -> None: ...

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None: ...

    def artifact(self, path: Path, name: str, metadata: dict) -> None: ...

    def summary(self, figures: dict) -> None: ...

    def close(self, timeout: float = CLOSE_TIMEOUT, exit_code: int = 0) -> str | None: ...


class WandbMirror:
    """One W&B run, written by a child process. No method raises, and only `close` waits."""

    def __init__(self, mode: str, folder: Path, opening: dict):
        self.mode = mode  # "online", "offline", or "off" once it has failed
        self.dropped = 0  # points lost to a full queue
        self._folder, self._id = folder, opening["id"]
        self._directory: str | None = None  # of this W&B run, once the child has said so
        self._queue: deque[dict] = deque()
        self._wake = threading.Condition()
        self._closing = False
        child = Path(__file__).with_name("mirror_child.py")
        with open(folder / "mirror.log", "ab", opener=ours) as log:
            # -P: none of the files beside it may be taken for a module that W&B imports. Its own session: a Ctrl-C is
            # for the training process, which then closes the mirror in its own time.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(child)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        threading.Thread(target=self._feed, args=(opening,), name="wandb-feed", daemon=True).start()
        self._reader = threading.Thread(target=self._listen, name="wandb-listen", daemon=True)
        self._reader.start()

    def log(self, metrics: dict) -> None:
        """Queue one point: numbers on the host, together with their axis (`epoch` or `images_seen`)."""
        self._put({"op": "log", "metrics": dict(metrics)})

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence]) -> None:
        """Queue a table; each column holds numbers or text, or None."""
        self._put({"op": "table", "key": key, "columns": list(columns), "rows": [list(row) for row in rows]})

    def artifact(self, path: Path, name: str, metadata: dict) -> None:
        """Queue a model's file, which must stay where it is; `close` needs UPLOAD_TIMEOUT then."""
        self._put({"op": "artifact", "path": str(Path(path).resolve()), "name": name, "metadata": dict(metadata)})

    def image(self, key: str, path: Path) -> None:
        """Queue a picture file; it must stay where it is until `close`."""
        self._put({"op": "image", "key": key, "path": str(Path(path).resolve())})

    def summary(self, figures: dict) -> None:
        """Queue figures of the run as a whole, such as its final errors."""
        self._put({"op": "summary", "figures": dict(figures)})

    def close(self, timeout: float = CLOSE_TIMEOUT, exit_code: int = 0) -> str | None:
        """Let W&B finish for at most `timeout` seconds, then abandon it; `exit_code` is the run's.

        Returns the `wandb sync` command that uploads what has not been, None where nothing is left.
        """
        if self._closing:
            return None
        deadline = time.monotonic() + timeout
        self._put({"op": "finish", "exit_code": exit_code, "seconds": max(timeout - 2.0, 0.5)})
        with self._wake:
            self._closing = True
            self._wake.notify()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()  # wandb-core watches its parent's pid and leaves too
            self._process.wait()
        if self.mode != "off" and self._process.returncode != 0:
            say(f"W&B did not finish within {timeout:.0f} s and was left behind; the run's own files are complete")
        self._reader.join(max(deadline - time.monotonic(), 0.5))
        if self.dropped:
            say(f"W&B was too slow for {self.dropped} points, which only log.jsonl has")
        if self._directory is not None and self.mode == "online" and self._process.returncode == 0:
            note_uploaded(self._folder, Path(self._directory).name)
        return sync_command(self._folder, self._id)

    def _put(self, message: dict) -> None:
        if self._closing or self.mode == "off":
            return
        with self._wake:
            if len(self._queue) >= QUEUE_LENGTH:
                self._queue.popleft()
                self.dropped += 1
            self._queue.append(message)
            self._wake.notify()

    def _feed(self, message: dict) -> None:
        """Write `message` and then the queue to the child, until closing or until the child is gone."""
        try:
            with self._process.stdin as pipe:
                while True:
                    pipe.write(json.dumps(plain(message)).encode() + b"\n")
                    pipe.flush()
                    with self._wake:
                        self._wake.wait_for(lambda: self._queue or self._closing)
                        if not self._queue:
                            return
                        message = self._queue.popleft()
        except Exception as error:  # a closed pipe, an odd value: nothing here may reach the run
            self._fail(str(error))

    def _listen(self) -> None:
        """Take what the child reports: where it writes, what went wrong."""
        try:
            with self._process.stdout as pipe:
                for line in pipe:
                    report = json.loads(line)
                    self._directory = report.get("directory", self._directory)
                    self.mode = report.get("mode", self.mode)
                    if "say" in report:
                        say(report["say"])
            if self._process.wait() != 0 and not self._closing:
                self._fail(f"its process ended with {self._process.returncode}")
        except Exception as error:
            self._fail(str(error))

    def _fail(self, reason: str) -> None:
        with self._wake:
            if self.mode == "off" or self._closing:
                return
            self.mode = "off"
            self._queue.clear()
        say(f"W&B stopped ({reason}; see {self._folder / 'mirror.log'}); the run goes on, its own files are complete")


def _by_environment() -> str | None:
    """What W&B's own variables say; None where they say nothing. UsageError for a mode that nobody knows: whoever set
    it may have meant that nothing is sent."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in ("true", "1", "yes"):
        return "off"
    said = os.environ.get("WANDB_MODE", "").strip().lower()
    if said and said not in BY_WANDB:
        raise UsageError(
            f"WANDB_MODE={said}: unknown, expected one of {', '.join(BY_WANDB)}; unset it, or pass --wandb"
        )
    return BY_WANDB.get(said)


def open_wandb(
    mode: str | None, run_dir: RunDir, project: str, name: str, config: dict, tags: Sequence[str] = ()
) -> WandbMirror | NoWandb:
    """Start mirroring the run in `run_dir`; returns at once, before W&B is reached or even imported.

    `mode` None means what WANDB_MODE says, else online where a W&B login exists, else offline; where W&B is
    not installed, off with one line said. An explicit mode raises UsageError where unknown and MachineError
    where W&B is not installed. A run folder keeps its W&B run id, so that a resumed run continues there. Only
    `config` and what is logged are sent: no code, git state, command line, packages, console or environment.
    """
    if mode not in (None, *MODES):
        raise UsageError(f"--wandb {mode}: unknown, expected one of {', '.join(MODES)}")
    chosen = mode or _by_environment() or ("online" if has_login() else "offline")
    if chosen == "off":
        return NoWandb()
    if importlib.util.find_spec("wandb") is None:
        if mode is not None:
            raise MachineError(f"--wandb {mode}: W&B is not installed; pip install wandb")
        say("W&B is not installed (pip install wandb): logging to the run folder only")
        return NoWandb()
    if chosen == "online" and not has_login():
        say("W&B: no login found (wandb login), so the run is mirrored offline")
        chosen = "offline"
    try:
        folder = run_dir.path.resolve() / "wandb"
        folder.mkdir(exist_ok=True)
        opening = {
            "op": "open",
            "mode": chosen,
            "project": project,
            "name": name,
            "config": config,
            "tags": list(tags),
            "metrics": definitions(),
            "id": run_id(folder),
            "dir": str(run_dir.path.resolve()),
        }
        return WandbMirror(chosen, folder, opening)
    except (OSError, MachineError) as error:
        say(f"W&B could not start ({error}); logging to the run folder only")
        return NoWandb()
