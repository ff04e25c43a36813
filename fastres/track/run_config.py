"""A run's config.json: what it decides, whether a folder's is this run's, and how two differ."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fastres.machine.console import say
from fastres.machine.errors import DataError, UsageError
from fastres.machine.files import read_regular, write_atomic
from fastres.machine.folders import shown, strangers
from fastres.machine.strict_json import plain
from fastres.track.log import read_log

SHOWN_DIFFERENCES = 12
BESIDE = "schedule.expected"
MARKS = {"schedule", "seed", "content_digest"}  # of every config.json that train writes
REMEDY = "restore it, or choose another --run-dir"


def flatten(config: dict) -> dict:
    """A nested configuration as {"optimizer.lr": 0.01, "stages.0.epochs": 5, …}; empty ones stay values."""
    flat: dict = {}

    def walk(name: str, value) -> None:
        if isinstance(value, (dict, list)) and value:
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{name}.{key}" if name else str(key), item)
        else:
            flat[name] = value

    for key, item in plain(config).items():
        walk(str(key), item)
    return flat


def differences(a: dict, b: dict) -> list[str]:
    """Lines such as "optimizer.lr: 0.01 in the folder, 0.02 now" for each value of `b` that is not `a`'s; but for the
    paper's figures, which decide nothing."""
    old, new = flatten(a), flatten(b)
    names = [*old, *(name for name in new if name not in old)]
    return [
        f"{name}: {_shown(old, name)} in the folder, {_shown(new, name)} now"
        for name in names
        if _shown(old, name) != _shown(new, name) and not name.startswith(BESIDE)
    ]


def refuse_different(theirs: dict, ours: dict, sentence: str) -> None:
    """UsageError where two configurations differ: `sentence`, and the first lines of the difference below it."""
    if different := differences(theirs, ours):
        more = len(different) - SHOWN_DIFFERENCES
        lines = different[:SHOWN_DIFFERENCES] + ([f"and {more} more"] if more > 0 else [])
        raise UsageError(sentence + ":\n  " + "\n  ".join(lines))


def _shown(flat: dict, name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "not set"


def refuse_foreign(path: Path, config: dict) -> None:
    """UsageError where the folder `path` holds anything but a run or its first moments; writes nothing.

    A run that was killed in its first moments left a lock, perhaps a temporary file. DataError for a damaged
    config.json.
    """
    found = strangers(path, is_lock)
    stored = read_object(path / "config.json", REMEDY)  # after the look around: a run that starts now writes it first
    if stored is None and found:
        raise UsageError(
            f"{path}: holds {shown(found)}, but no config.json, so it is no run's folder; nothing was changed there, "
            "choose another --run-dir"
        )
    if stored is not None and not MARKS & config.keys() <= stored.keys():
        raise UsageError(
            f"{path / 'config.json'}: is no run's, which would say {', '.join(sorted(MARKS))}; nothing was changed "
            "there, choose another --run-dir"
        )


def is_lock(path: Path) -> bool:
    """Whether a file is a run's lock: it holds a process's number."""
    return path.name == "lock" and not path.is_symlink() and read_regular(path, 32).strip().isdigit()


def settle_config(path: Path, config: dict, may_change: Sequence[str]) -> tuple[dict, dict]:
    """Write config.json where it is new; where it stands, it must say the same but for the keys `may_change`.

    Returns what it holds, and what it held before of the keys that changed.
    """
    file = path / "config.json"
    stored = read_object(file, REMEDY)
    if stored is None:
        write_atomic(file, as_json(config))
        return plain(config), {}
    changed = {key: config[key] for key in may_change if stored.get(key) != config[key]}
    if stored.keys() >= MARKS and not _has_trained(path) and differences(stored | changed, config):
        say(f"{path}: the run of another configuration in it has not trained a step; this one takes its place")
        for name in ("run_id", "mirrored.json"):  # W&B gets another run too
            (path / "wandb" / name).unlink(missing_ok=True)
        write_atomic(file, as_json(config))
        return plain(config), {}
    again = "choose another --run-dir, or give the same values again"
    refuse_different(stored | changed, config, f"{path}: holds a run of another configuration; {again}")
    settled = stored | changed
    if "schedule" in stored:  # the figures beside it may be others
        settled["schedule"] = plain(config)["schedule"]
    if settled != stored and (read_object(path / "summary.json", "remove it") or {}).get("status") != "done":
        write_atomic(file, as_json(settled))
    return settled, {key: stored.get(key) for key in changed}


def _has_trained(path: Path) -> bool:
    """Whether the run in this folder has done a step, or anything in it looks as if one had."""
    left = (*path.glob("checkpoints/*"), *path.glob("stages/*"), *path.glob("*.safetensors"))
    logged = (record["event"] in ("step", "epoch", "final") for record in read_log(path / "log.jsonl"))
    done = (read_object(path / "summary.json", "remove it") or {}).get("status") == "done"
    return bool(left) or done or any(logged)


def read_object(file: Path, remedy: str) -> dict | None:
    """The JSON object in `file`, None where there is no such file; DataError with `remedy` where it is none."""
    try:
        value = json.loads(read_regular(file))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}), expected a JSON object; {remedy}") from None
    except (ValueError, RecursionError) as error:  # the latter where it is nested too deeply
        raise DataError(f"{file}: is not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise DataError(f"{file}: holds a {type(value).__name__}, expected a JSON object; {remedy}")
    return value


@contextmanager
def as_written(run: Path) -> Iterator[None]:
    """DataError where what is read of a run's files inside the block is not as a run writes it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise DataError(
            f"{run}: its config.json, log.jsonl or summary.json holds what no run writes ({error!r}); restore that "
            "file, or name another run"
        ) from error


def as_json(value: dict) -> bytes:
    """As config.json and summary.json are written."""
    return json.dumps(plain(value), indent=1, allow_nan=False).encode() + b"\n"
