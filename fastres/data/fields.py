"""What the fields of a manifest must be, before anything is made of them."""

import re
from pathlib import Path
from typing import Any

LARGEST = 1 << 48  # of counts and bytes
LARGEST_SIDE = 1 << 16
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_fields(content: dict) -> None:
    """ValueError that names the first field which is missing or not what a packer writes."""
    _whole("side", content.get("side"), 1, LARGEST_SIDE)
    for number, entry in enumerate(_held("classes", content, list)):
        _need(isinstance(entry, dict), f"classes.{number}", entry, "an object")
        for key in ("wnid", "name"):
            _need(isinstance(entry.get(key), str), f"classes.{number}.{key}", entry.get(key), "text")
    wnids = [entry["wnid"] for entry in content["classes"]]
    _need(0 < len(set(wnids)) == len(wnids), "classes", len(wnids), "classes, each of them once")
    for split, entry in _held("splits", content, dict).items():
        _check_split(f"splits.{split}", entry, len(wnids))
    for name, entry in _held("files", content, dict).items():
        _need(Path(name).name == name and "\0" not in name, "files", name, "no name that leads out of the folder")
        _need(isinstance(entry, dict), f"files.{name}", entry, "an object")
        _whole(f"files.{name}.bytes", entry.get("bytes"), 0, LARGEST)
        for key in ("sha256", *(["sample"] if "sample" in entry else [])):
            _digest(f"files.{name}.{key}", entry.get(key))
    for key in ("data_digest", "class_digest", *(["name_digest"] if "name_digest" in content else [])):
        _digest(key, content.get(key))
    _held("source", content, dict)
    _held("versions", content, dict)
    for key, value in content["source"].items():
        _need(key not in ("name", "kind") or isinstance(value, str), f"source.{key}", value, "text")
    if selection := content["source"].get("selection"):
        whole = selection.get("of") if isinstance(selection, dict) else None
        _need(isinstance(whole, dict), "source.selection", selection, "an object with what it is of")
        _whole("source.selection.of.classes", whole.get("classes"), 1, LARGEST)
        _digest("source.selection.of.class_digest", whole.get("class_digest"))
        numbers = selection.get("per_class") or [1, None]
        holds = isinstance(numbers, list) and len(numbers) == 2 and type(numbers[0]) is int
        holds = holds and (numbers[1] is None or type(numbers[1]) is int)
        _need(holds, "source.selection.per_class", numbers, "two whole numbers")
    if held := content["source"].get("held_out"):
        _need(isinstance(held, dict), "source.held_out", held, "an object")
        share = held.get("fraction")
        _need(type(share) is float and 0 < share < 1, "source.held_out.fraction", share, "a number between 0 and 1")
        for key in ("seed", "train", "val"):
            _whole(f"source.held_out.{key}", held.get(key), 0, LARGEST)


def _check_split(where: str, entry: Any, classes: int) -> None:
    _need(isinstance(entry, dict), where, entry, "an object")
    count = _whole(f"{where}.count", entry.get("count"), 1, LARGEST)
    _need(isinstance(entry.get("labelled", True), bool), f"{where}.labelled", entry.get("labelled"), "true or false")
    if "pixels" in entry:
        _digest(f"{where}.pixels", entry["pixels"])
    for key in ("grayscale", "skipped", "duplicates"):
        _whole(f"{where}.{key}", entry.get(key, 0), 0, LARGEST)
    converted = entry.get("converted", {})
    _need(isinstance(converted, dict), f"{where}.converted", converted, "an object")
    for kind, number in converted.items():
        _whole(f"{where}.converted.{kind}", number, 0, LARGEST)
    if "per_class" in entry:
        numbers = _held("per_class", entry, list)
        for number in numbers:
            _whole(f"{where}.per_class", number, 0, LARGEST)
        _need((len(numbers), sum(numbers)) == (classes, count), f"{where}.per_class", sum(numbers), f"{count} in all")


def _held(key: str, content: dict, kind: type) -> Any:
    _need(isinstance(content.get(key), kind), key, content.get(key), "an object" if kind is dict else "a list")
    return content[key]


def _whole(where: str, value: Any, least: int, most: int) -> int:
    _need(type(value) is int and least <= value <= most, where, value, f"a whole number from {least} to {most}")
    return value


def _digest(where: str, value: Any) -> None:
    _need(isinstance(value, str) and bool(_DIGEST.fullmatch(value)), where, value, "64 hexadecimal digits")


def _need(holds: bool, where: str, found: Any, expected: str) -> None:
    if not holds:
        shown = repr(found)
        raise ValueError(f"{where} is {shown[:60]}{'...' if len(shown) > 60 else ''}, expected {expected}")
