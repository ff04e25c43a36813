"""Whether weights and packed data belong together: the run's own data, one side, the same classes in one order."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch

from fastres.data.manifest import Manifest
from fastres.machine.console import say
from fastres.machine.errors import DataError
from fastres.track.log import read_log
from fastres.track.run_config import read_object

State = dict[str, torch.Tensor]


def data_of(run: Path | None, given: Path | None) -> Path:
    """The packed folder to use: the one that is given, else the one that the run was trained on by its summary or,
    where it has none yet, its log; else packed/. DataError where the run's is gone."""
    named = None if run is None else _told_by(run)
    if given is not None or named is None:
        return given or Path("packed")
    # older runs kept the path as it was typed, from wherever that was
    found = next((path for path in (Path(named), run / named) if path.is_dir()), None)
    if found is None:
        raise DataError(f"{run}: was trained on {named}, and there is no such folder here; pass it with --data DIR")
    return found


def _told_by(run: Path) -> str | None:
    summary = read_object(run / "summary.json", "pass --data DIR and the weights file itself") or {}
    started = [record for record in read_log(run / "log.jsonl") if record["event"] == "start" and "data" in record]
    told = [summary.get("data"), *(record["data"] for record in reversed(started))]
    return next((data for data in told if isinstance(data, str) and data), None)


def check_side(side: int, manifest: Manifest, packed: Path, source: object) -> None:
    """DataError unless the data's images have the side that the weights were made for."""
    if side != manifest.side:
        raise DataError(
            f"weights {source}: made for images of {side} pixels, {packed} has {manifest.side}; expected the same; "
            f"pack the images with --side {side} into another folder, and pass that with --data"
        )


def in_order_of(state: State, metadata: dict, manifest: Manifest, source: object) -> State:
    """`state` with the rows of its head in the order of the data's classes. Says where it had to bring them into it.

    DataError where the classes are others: another number, another map, or ids and names that are not the data's.
    """
    theirs, digest = metadata.get("classes"), metadata.get("class_digest", manifest.class_digest)
    count = len(state["fc.weight"])
    if count != manifest.num_classes or (theirs is None and digest != manifest.class_digest):
        raise DataError(
            f"weights {source}: trained for {count} classes (map {digest[:12]}...), expected the data's "
            f"{manifest.num_classes} (map {manifest.class_digest[:12]}...); evaluate on the data set it was trained for"
        )
    if theirs is None:
        return state
    ids, names = [c.wnid for c in manifest.classes], [c.name for c in manifest.classes]
    if [label for label, _ in theirs] == ids and digest != manifest.class_digest:
        raise DataError(f"weights {source}: their class names do not match the digest beside them; get the file again")
    rows = None
    for own, wanted in ((0, ids), (1, names), (0, names)):
        rows = rows or _rows([pair[own] for pair in theirs], wanted)
    if rows is None:
        ours = {label for label, _ in theirs}
        strange, other = sorted(ours - set(ids)) or [theirs[0][0]], sorted(set(ids) - ours) or ids
        raise DataError(
            f"weights {source}: trained for other classes, such as {strange[0]!r}, than the data's, such as "
            f"{other[0]!r}; evaluate on the data set it was trained for"
        )
    if rows == list(range(count)):
        return state
    moved = next(label for k, label in enumerate(ids) if rows[k] != k)
    say(
        f"weights {source}: their outputs are in another order than the data's classes; put into it by "
        f"name ({moved}, ...)"
    )
    return {**state, **{name: state[name][rows] for name in ("fc.weight", "fc.bias")}}


def _rows(theirs: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Where each wanted class stands in theirs; None unless both are the same classes, each once."""
    where = {unicodedata.normalize("NFC", label): row for row, label in enumerate(theirs)}
    named = [unicodedata.normalize("NFC", label) for label in wanted]
    if len(set(named)) != len(named) or set(named) != set(where) or len(where) != len(theirs):
        return None
    return [where[label] for label in named]
