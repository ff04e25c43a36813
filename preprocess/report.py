"""What a packing amounts to, for people and for programs."""

from pathlib import Path

from fastres.data.manifest import Manifest
from preprocess.staging import BAD_IMAGES
from preprocess.tree import SPLITS


def as_json(manifest: Manifest, out: Path, status: str, speed: dict) -> dict:
    """One object. status: "packed" or "up to date"; speed: seconds and img_per_s, if packed now."""
    return {
        "status": status,
        "out": str(out),
        "side": manifest.side,
        "classes": manifest.num_classes,
        "splits": {split: manifest.splits.get(split, {"count": 0}) for split in SPLITS},
        "bytes": total_bytes(manifest),
        "data_digest": manifest.data_digest,
        "class_digest": manifest.class_digest,
        "source": manifest.source,
        **speed,
    }


def as_text(manifest: Manifest, out: Path, status: str, speed: dict) -> str:
    """A few lines that end with the path."""
    lines = [f"{'split':6}{'images':>10}{'grayscale':>11}{'skipped':>9}{'duplicates':>12}  converted"]
    for split in SPLITS:
        if split not in manifest.splits:
            lines.append(f"{split:6}{0:>10}  absent from this data set")
            continue
        entry = manifest.splits[split]
        converted = ", ".join(f"{n:,} {kind}" for kind, n in entry["converted"].items()) or "none"
        skipped, duplicates = entry.get("skipped", 0), entry.get("duplicates", 0)
        counts = f"{entry['count']:>10,}{entry['grayscale']:>11,}{skipped:>9,}{duplicates:>12,}"
        lines.append(f"{split:6}{counts}  {converted}")
    if any(entry.get("duplicates") for entry in manifest.splits.values()):
        lines.append("duplicates: images of train, or of val, with exactly the pixels of an earlier one of train")
    size = f"{manifest.num_classes} classes, {manifest.side}x{manifest.side} pixels, {total_bytes(manifest):,} bytes"
    if speed:
        size += f"; {speed['seconds']:.1f} s, {speed['img_per_s']:,.0f} img/s"
    lines.append(size)
    if any(entry.get("skipped") for entry in manifest.splits.values()):
        lines.append(f"skipped images are listed in {out / BAD_IMAGES}")
    return "\n".join([*lines, f"{status}: {out}"])


def total_bytes(manifest: Manifest) -> int:
    return sum(entry["bytes"] for entry in manifest.files.values())
