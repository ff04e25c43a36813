"""Which files in an output folder are the packer's: those that a manifest or a state of ours in it lists."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from fastres.data import manifest as manifests
from fastres.machine.errors import UsageError
from fastres.machine.files import read_regular
from fastres.machine.folders import shown, strangers

STATE = ".pack-state.json"  # what the last run saw, to know that nothing has changed since
BAD_IMAGES = "bad-images.txt"
TREE = "tree"  # where the small world is rendered
MARKER = "small_world.json"  # in it, written last; names the world and the recipe that the tree was made with
KEYS = {"format", "splits", "files", "data_digest", "class_digest"}  # of every manifest of ours


def owned(out: Path) -> set[str]:
    """Names of ours in `out`; empty where there is neither a manifest nor a state of ours.

    The state knows them where the manifest was damaged, and while a packer that was killed had taken it away.
    """
    manifest, state = _object(out / manifests.FILE_NAME), _object(out / STATE)
    names: set[str] = set()
    if manifest.keys() >= KEYS and isinstance(manifest["files"], dict):
        skipped = any(isinstance(split, dict) and split.get("skipped") for split in _values(manifest["splits"]))
        names |= {manifests.FILE_NAME, *manifest["files"], *([BAD_IMAGES] if skipped else [])}
    listed = state.get("publishing") or state.get("outputs")
    if isinstance(listed, (dict, list)):
        names |= {manifests.FILE_NAME, *(name for name in listed if isinstance(name, str))}
    return {name for name in names if Path(name).name == name}


def refuse_foreign(out: Path) -> None:
    """UsageError where `out` holds something and nothing in it is ours."""
    found = strangers(out, _is_small_world)
    if found and not owned(out):
        raise UsageError(
            f"--out {out}: holds {shown(found)} and no manifest of the packer's, expected a packed folder or an empty "
            "one; nothing was changed there, name another --out"
        )


def refuse_packing_of_others(out: Path, staging: Path, lock: str) -> None:
    """UsageError where the folder to pack in is there and no packer that was killed has left it."""
    if not os.path.lexists(staging) or (out / lock).exists() or owned(out):
        return
    if os.path.lexists(staging):  # still: a packer that failed removes it before its lock
        raise UsageError(
            f"--out {out}: holds {staging.name}, which the packer did not leave; nothing was changed there, move it "
            "away or name another --out"
        )


def refuse_taken(out: Path, names: Iterable[str]) -> None:
    """UsageError where something that is not ours lies in `out` under one of `names`."""
    names = {*names, manifests.FILE_NAME}
    links = {name for name in names if (out / name).is_symlink()}
    found = sorted(links | {name for name in names - owned(out) if (out / name).exists()})
    if found:
        raise UsageError(
            f"--out {out}: holds {shown(found)}, which the packer did not write and would replace; nothing was changed "
            "there, move it away or name another --out"
        )


def _is_small_world(path: Path) -> bool:
    return path.name == TREE and (path / MARKER).is_file()


def _object(path: Path) -> dict:
    """The JSON object in a file, {} where there is none."""
    try:
        content = json.loads(read_regular(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _values(content: object) -> list:
    return list(content.values()) if isinstance(content, dict) else []
