"""The process that talks to Weights & Biases for a run: reads messages on stdin, reports on stdout.

Started by fastres/track/mirror.py, by path. Messages are JSON lines: one `open`, then `log`, `image`, `table`,
`artifact`, `summary`, and `finish`. The end of stdin without `finish` means that the training process died. Reports
are JSON lines {"mode", "directory", "say"}, each optional. It imports nothing of fastres, so it starts as fast as
W&B does.
"""

import contextlib
import json
import os
import ssl
import sys
import threading
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable

ANSWER_TIMEOUT = 4.0  # seconds the server has to say anything at all
INIT_TIMEOUT = 12.0  # seconds it has to open the run
ORPHAN_SECONDS = 30.0  # seconds to finish once the training process is gone

# Nothing about the machine or the user's files leaves with the run. A setting that a version lacks is left out.
PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
    "host": "",
    "program": "fastres",
    "silent": True,
}


def main() -> int:
    """Serve one run; 0 when W&B has taken everything, 1 when it failed."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever W&B prints goes to mirror.log, not between the reports
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports wait for a dead network at exit

    def report(**fields) -> None:
        with contextlib.suppress(BrokenPipeError):  # the training process died: what it sent is still to be kept
            print(json.dumps(fields), file=reports, flush=True)

    messages = (json.loads(line) for line in sys.stdin if line.endswith("\n"))  # a kill can tear the last line
    opening = next(messages)
    try:
        run = open_run(opening, report)
        mark = Mark(os.path.join(opening["dir"], "wandb", "mirrored.json"))
        for message in messages:
            if message["op"] == "finish":
                return finish(run, message["exit_code"], message["seconds"])
            if message["op"] != "log" or mark.is_new(message["metrics"]):
                handle(run, message)
        return finish(run, 1, ORPHAN_SECONDS)
    except Exception as error:
        traceback.print_exc()
        report(mode="off", say=f"W&B failed ({one_line(error)}); the run goes on, its own files are complete")
        leave_after(ORPHAN_SECONDS, 1)  # W&B's exit hooks may wait for a network that swallows
        return 1


def open_run(opening: dict, report: Callable):
    """The W&B run, online where the server answers, else offline so that `wandb sync` can send it later."""
    # beside the run: what `wandb sync` sends later must not lie in the home folder
    os.environ.setdefault("WANDB_DATA_DIR", os.path.join(opening["dir"], "wandb", "data"))
    import wandb

    mode, why = opening["mode"], None
    if mode == "online":
        why = unreachable(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
        if why is None:
            try:
                return started(wandb, opening, "online", report)
            except Exception as error:
                traceback.print_exc()
                why = one_line(error)
                wandb.teardown()  # else its service process still holds the run id
        report(mode="offline", say=f"W&B cannot be reached ({why}); mirroring offline, for a later `wandb sync`")
    return started(wandb, opening, "offline", report)


def started(wandb, opening: dict, mode: str, report: Callable):
    """`wandb.init` with everything private switched off, and the axis of every metric."""
    known = getattr(wandb.Settings, "model_fields", {})
    wanted = {
        **PRIVATE,
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": ORPHAN_SECONDS,
        "x_stats_pid": os.getppid(),
        "x_transaction_log_flush_interval": 1.0,
    }  # seconds of points that a kill of W&B's process can lose
    settings = wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
    same = {name: opening[name] for name in ("dir", "project", "name", "id", "config", "tags")}
    run = wandb.init(mode=mode, resume="allow", settings=settings, **same)
    for name, axis, summary in opening["metrics"]:
        run.define_metric(name, step_metric=axis, summary=summary)
    report(mode=mode, directory=os.path.dirname(run.dir))
    return run


def no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


class Mark:
    """How far earlier parts of the run were mirrored: a resumed one repeats what came after its checkpoint."""

    def __init__(self, path: str) -> None:
        self.path, self.reached = path, {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError), open(path) as file:
            self.reached = {axis: at for axis, at in json.load(file).items() if isinstance(at, (int, float))}
        self.before = dict(self.reached)

    def is_new(self, metrics: dict) -> bool:
        """Whether no part before had this point; this one has it from here on."""
        axis = "epoch" if "epoch" in metrics else "images_seen"
        at = metrics.get(axis)
        if at is None:
            return True
        if at <= self.before.get(axis, -1):
            return False
        if at > self.reached.get(axis, -1):
            self.reached[axis] = at
            with contextlib.suppress(OSError), open(f"{self.path}.tmp", "w", opener=no_link) as file:
                json.dump(self.reached, file)
            with contextlib.suppress(OSError):
                os.replace(f"{self.path}.tmp", self.path)
        return True


def handle(run, message: dict) -> None:
    """One message of the training process."""
    if message["op"] == "log":
        run.log(message["metrics"])  # never step=: W&B drops what comes twice after a resume
    elif message["op"] == "image":
        import wandb

        run.log({message["key"]: wandb.Image(message["path"])})
    elif message["op"] == "table":
        import wandb

        run.log({message["key"]: wandb.Table(columns=message["columns"], data=message["rows"])})
    elif message["op"] == "artifact":
        import wandb

        model = wandb.Artifact(message["name"], type="model", metadata=message["metadata"])
        model.add_file(message["path"], policy="immutable")  # read where it lies, not from a copy in the home folder
        run.log_artifact(model)
    elif message["op"] == "summary":
        run.summary.update(message["figures"])


def finish(run, exit_code: int, seconds: float) -> int:
    """Close the run; 0 only when W&B is done within `seconds`."""
    leave_after(seconds, 2)
    run.finish(exit_code=exit_code)
    return 0


def one_line(error: Exception) -> str:
    """An exception as the first line of its text, with its kind."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def leave_after(seconds: float, exit_code: int) -> None:
    """End this process `seconds` from now, whatever it is waiting for."""
    timer = threading.Timer(seconds, os._exit, (exit_code,))
    timer.daemon = True
    timer.start()


def unreachable(url: str) -> str | None:
    """None where a server answers at `url` with anything, else why not. Proxies are used as W&B uses them."""
    try:
        urllib.request.urlopen(url, timeout=ANSWER_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except Exception as error:
        return f"{error} after {ANSWER_TIMEOUT:.0f} s" if isinstance(error, TimeoutError) else str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
