"""What a packing amounts to, for people and for programs."""

from pathlib import Path

from fastres.data.described import describe
from fastres.data.manifest import Manifest
from preprocess.sources.tree import SPLITS
from preprocess.staging import BAD_IMAGES

SINCE = {  # packer's version -> what it does otherwise than the one before
    4: "images are turned upright by their EXIF orientation, transparent pixels show a background instead of black, "
    "16-bit grey, WebP, AVIF, TIFF and JPEG 2000 are read, and images of which a part is missing are bad ones",
    5: "test images in the classes' folders have labels",
}


def as_json(manifest: Manifest, out: Path, status: str, speed: dict) -> dict:
    """One object. status: "packed" or "up to date"; speed: seconds and img_per_s, if packed now."""
    return {
        "status": status,
        "out": str(out),
        "data": describe(manifest),
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
            chosen = split in manifest.source.get("selection", {}).get("without", ())
            why = "left out: --classes, and its images have none" if chosen else "absent from this data set"
            lines.append(f"{split:6}{0:>10}  {why}")
            continue
        entry = manifest.splits[split]
        converted = ", ".join(f"{n:,} {kind}" for kind, n in entry["converted"].items()) or "none"
        skipped, duplicates = entry.get("skipped", 0), entry.get("duplicates", 0)
        counts = f"{entry['count']:>10,}{entry['grayscale']:>11,}{skipped:>9,}{duplicates:>12,}"
        lines.append(f"{split:6}{counts}  {converted}")
    if any(entry.get("duplicates") for entry in manifest.splits.values()):
        lines.append("duplicates: images of train, or of val, with exactly the pixels of an earlier one of train")
    lines.append(describe(manifest))
    if held := manifest.source.get("held_out"):
        lines.append(
            f"held out of train: {held['val']:,} images for val, {held['train']:,} stay "
            f"(--val-fraction {held['fraction']:g} --val-seed {held['seed']})"
        )
    lines += per_class(manifest) + left_out(manifest)
    size = f"{manifest.num_classes} classes, {manifest.side}x{manifest.side} pixels, {total_bytes(manifest):,} bytes"
    if speed:
        size += f"; {speed['seconds']:.1f} s, {speed['img_per_s']:,.0f} img/s"
    lines.append(size)
    if any(entry.get("skipped") for entry in manifest.splits.values()):
        lines.append(f"skipped images are listed in {out / BAD_IMAGES}")
    return "\n".join([*lines, f"{status}: {out}"])


def per_class(manifest: Manifest) -> list[str]:
    """The extremes of images per class, and which classes have no validation images."""
    lines, names = [], [c.wnid if c.wnid == c.name else f"{c.wnid} {c.name}" for c in manifest.classes]
    for split, entry in manifest.splits.items():
        if table := entry.get("per_class"):
            low, high = min(table), max(table)
            shown = f"{low:,} ({names[table.index(low)]}) to {high:,} ({names[table.index(high)]})"
            lines.append(f"images per class of {split}: {shown if low < high else f'{low:,}'}")
    without = [names[i] for i, n in enumerate(manifest.splits.get("val", {}).get("per_class", ())) if n == 0]
    if without:
        listed = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        lines.append(f"no validation image of {len(without)} of the {len(names)} classes: {listed}")
    return lines


def left_out(manifest: Manifest) -> list[str]:
    """What the packer saw in the tree and did not read."""
    lines, ignored = [], manifest.source.get("ignored", {})
    if ignored:
        kinds = (f"{kind} {entry['count']:,} (first {entry['example']})" for kind, entry in sorted(ignored.items()))
        lines.append(f"ignored: {', '.join(kinds)}")
    if beside := manifest.source.get("beside"):
        lines.append(
            f"not read: {', '.join(f'{folder}/' for folder in beside[:5])}{', ...' if len(beside) > 5 else ''}"
        )
    return lines


def news(version: object) -> str:
    """What packers do otherwise since `version`, a number or its text; since the last without one, where it is none."""
    known = int(version) if str(version).isdecimal() else min(SINCE) - 1
    return "; ".join(what for since, what in SINCE.items() if since > known)


def changes(before: dict, now: dict) -> str:
    """Why the same folder is packed again: two requests, the one remembered and the present one."""
    old, new = before.get("options", {}), now["options"]
    version, reasons = old.get("packer"), []
    if version != new["packer"]:
        reasons.append(f"it is of another packer ({version}; now {new['packer']}: {news(version)})")
    else:
        reasons += [
            f"{key} was {old.get(key)}, is {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)
        ]
    if before.get("source") != now["source"]:
        reasons.append("it is of another source")
    elif before.get("fingerprint") != now["fingerprint"]:
        reasons.append("the data set has changed")
    return "; ".join(reasons)


def total_bytes(manifest: Manifest) -> int:
    return sum(entry["bytes"] for entry in manifest.files.values())
