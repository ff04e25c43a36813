"""Checkpoints: atomic, carrying their own digest, the last two kept. Loading runs no pickled code.

The file name says where the run stood and the first 16 hex digits of the content's sha256, so a bit-flipped file
(which torch.load would accept) is known before it is opened:  stage2-epoch004-step000123-9f86d081884c7d65.pt
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from fastres.errors import DataError
from fastres.files import write_atomic
from fastres.track.console import say

KEEP = 2
_NAME = re.compile(r"stage(\d+)-epoch(\d+)-step(\d+)-([0-9a-f]{16})\.pt")


@dataclass(frozen=True, order=True)
class Position:
    """How far a run is: stage index, whole epochs done in it, steps done in the epoch after those."""

    stage: int = 0
    epoch: int = 0
    step: int = 0


def save_checkpoint(folder: Path, position: Position, state: dict) -> Path:
    """Write `state` (dicts, lists, numbers, tensors) for `position`; older files beyond the last two go.

    MachineError where the disk is full; the checkpoints before it stay.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:16]
    path = folder / f"stage{position.stage}-epoch{position.epoch:03d}-step{position.step:06d}-{digest}.pt"
    write_atomic(path, content)
    for _, old in _checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> tuple[Position, dict] | None:
    """The newest whole checkpoint, tensors on the CPU; None where there is none at all.

    A damaged one is named and the one before it used. DataError if all are damaged: never a silent start from zero.
    """
    found = _checkpoints(folder)
    for position, path in reversed(found):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] == _NAME.fullmatch(path.name)[4]:
            return position, _unpack(content, path)
        say(f"checkpoint {path}: its content does not match the digest in its name; trying the one before it")
    if found:
        raise DataError(
            f"{folder}: all {len(found)} checkpoints are damaged, expected at least one whole; restore one, or remove "
            "the run folder to start over"
        )
    return None


def _unpack(content: bytes, path: Path) -> dict:
    """The state dict in a checkpoint; DataError if it holds anything that would have to be executed."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle.UnpicklingError for code, several kinds for what is no torch file
        raise DataError(
            f"{path}: holds more than tensors and plain values, so it was not loaded ({type(error).__name__}); remove "
            "it, and the one before it is used"
        ) from error
    if not isinstance(state, dict) or "network" not in state:
        raise DataError(f"{path}: is no checkpoint of a run; remove it, and the one before it is used")
    return state


def _checkpoints(folder: Path) -> list[tuple[Position, Path]]:
    """Oldest first."""
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((Position(int(m[1]), int(m[2]), int(m[3])), path) for m, path in matches if m)
