"""What a packed folder's data are, in words: for labels, reports, and what may stand beside the paper's figures."""

from fastres.data.manifest import Manifest

TINY_IMAGENET = "342d6acf18911d62da4c981221f833718a3ef8299e55512239e09c64e49a344c"  # digest_of_classes of its 200 ids
TINY_IMAGENET_SIDE = 64
TINY_IMAGENET_COUNTS = {"train": 100_000, "val": 10_000}
SPLIT_NAMES = {"train": "training", "val": "validation"}
SMALL_WORLD = "small-world"  # the kind of source that the packer renders


def is_tiny_imagenet(manifest: Manifest) -> bool:
    """Whether these are the paper's data: all of Tiny ImageNet at its own size."""
    counts = {split: manifest.count(split) for split in TINY_IMAGENET_COUNTS}
    own = manifest.class_digest == TINY_IMAGENET and manifest.side == TINY_IMAGENET_SIDE
    return own and counts == TINY_IMAGENET_COUNTS


def is_own(manifest: Manifest) -> bool:
    """Whether these are somebody's own data: neither Tiny ImageNet, nor a part of it, nor drawn."""
    return whole_of(manifest)["class_digest"] != TINY_IMAGENET and not is_rendered(manifest)


def whole_of(manifest: Manifest) -> dict:
    """`classes` and `class_digest` of what was packed, or of what that is a part of."""
    selection = manifest.source.get("selection") or {}
    return selection.get("of") or {"classes": manifest.num_classes, "class_digest": manifest.class_digest}


def is_rendered(manifest: Manifest) -> bool:
    """Whether the images are drawn, not photographed."""
    return manifest.source.get("kind") == SMALL_WORLD


def describe(manifest: Manifest) -> str:
    """Such as "Tiny ImageNet, 100 of its 200 classes, 16 pixels"."""
    selection, whole = manifest.source.get("selection") or {}, whole_of(manifest)
    name = "Tiny ImageNet" if whole["class_digest"] == TINY_IMAGENET else manifest.source.get("name", "unnamed data")
    if is_own(manifest) and name.startswith("Tiny ImageNet"):  # a folder of that name, with other classes in it
        name = f"the folder {name}"
    if is_rendered(manifest):
        name = f"the small world's {manifest.source.get('part', 'part')}"
    parts = [name]
    if whole["classes"] != manifest.num_classes:
        parts.append(f"{manifest.num_classes} of its {whole['classes']} classes")
    elif not is_tiny_imagenet(manifest):
        parts.append(f"{manifest.num_classes} classes")
    if per_class := selection.get("per_class"):
        asked = {"train": per_class[0], **({"val": per_class[1]} if per_class[1] else {})}
        there = {n == asked[split] for split in asked for n in manifest.splits[split].get("per_class", ())}
        counts = " and ".join(f"{asked[split]} {name}" for split, name in SPLIT_NAMES.items() if split in asked)
        parts.append(f"{'' if there <= {True} else 'up to '}{counts} images a class")
    if held := manifest.source.get("held_out"):
        parts.append(f"{100 * held['fraction']:g} % of train held out as val")
    if name != "Tiny ImageNet" or manifest.side != TINY_IMAGENET_SIDE:
        parts.append(f"{manifest.side} pixels")
    return ", ".join(parts)
