"""What stands beside the tensors of a weights file: one JSON object under `fastres`. A file may come from anywhere."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from fastres.machine import strict_json
from fastres.machine.errors import DataError, UsageError, first_line
from fastres.schedules.view_settings import CONVENTIONS
from fastres.views.geometry import Geometry

LARGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


HEX = re.compile(r"#[0-9a-f]{6}")
LARGEST = 8192  # pixels of a side, before and after enlarging
# What is relied on of it, and what that must be.
METADATA = {
    "side": (
        f"a multiple of 8 up to {LARGEST}",
        lambda value: type(value) is int and value in range(8, LARGEST + 1, 8),
    ),
    "classes": ("pairs of texts", lambda value: isinstance(value, list) and all(map(_is_pair, value))),
    "digest": ("text", lambda value: isinstance(value, str)),
    "upscale": (
        f"a number from {8 / LARGEST} to {LARGEST // 8}",
        lambda value: type(value) in (int, float) and 8 / LARGEST <= value <= LARGEST // 8,
    ),
    "background": ("a colour as #ffffff", lambda value: isinstance(value, str) and bool(HEX.fullmatch(value))),
    "whole": ("true or false", lambda value: isinstance(value, bool)),
    "convention": (" or ".join(CONVENTIONS), lambda value: value in CONVENTIONS),
    "class_digest": ("text", lambda value: isinstance(value, str)),
}


def read_metadata(path: Path) -> dict:
    """What save_weights put beside the tensors; {} for a file from elsewhere. DataError where it makes no sense."""
    if Path(path).suffix != ".safetensors":
        return {}
    try:
        with open(path, "rb") as file:  # 8 bytes: how many of JSON follow. safetensors itself would map the file
            size = int.from_bytes(file.read(8), "little")
            header = strict_json.loads(file.read(min(size, LARGEST_HEADER)))
        text = (header.get("__metadata__") or {}).get("fastres", "{}")
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f"weights {path}: not readable ({first_line(error)}); get the file again") from error
    return parse_metadata(text, path)


def parse_metadata(text: str, path: Path) -> dict:
    """The JSON object that stands in the file at `path`. DataError where it makes no sense."""
    try:
        metadata = strict_json.loads(text)
    except (ValueError, TypeError) as error:
        raise DataError(f"weights {path}: its metadata is not JSON ({error}); get the file again") from error
    if not isinstance(metadata, dict):
        raise DataError(f"weights {path}: its metadata is {text[:40]!r}, expected a JSON object; get the file again")
    return checked(metadata, path)


def checked(metadata: dict, path: object) -> dict:
    """`metadata` itself; DataError where what is relied on makes no sense."""
    for name, (expected, holds) in METADATA.items():
        if name in metadata and not holds(metadata[name]):
            raise DataError(
                f"weights {path}: its metadata says {name} {metadata[name]!r}, expected {expected}; get the file "
                "again, or save its tensors alone"
            )
    if {"side", "upscale"} <= metadata.keys() and not makes_a_side(metadata["side"], metadata["upscale"]):
        raise DataError(
            f"weights {path}: its metadata says side {metadata['side']} and upscale {metadata['upscale']}, expected a "
            f"multiple of 8 up to {LARGEST} pixels together; get the file again, or save its tensors alone"
        )
    return metadata


def makes_a_side(side: int, upscale: float) -> bool:
    """Whether images of `side` pixels, made `upscale` times larger, have a side that networks are shown."""
    try:
        return Geometry(side, upscale).resized <= LARGEST
    except UsageError:
        return False


def digest_of(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and contents in the order of names."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # any dtype's bytes
    return found.hexdigest()


def check_digest(state: Mapping[str, torch.Tensor], metadata: dict, path: object) -> None:
    """DataError where the tensors are not those that the digest beside them was made of."""
    if "digest" in metadata and metadata["digest"] != digest_of(state):
        raise DataError(f"weights {path}: its tensors do not match the digest beside them; get the file again")
