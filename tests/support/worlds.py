"""Tiny packed data sets for tests, made with NumPy alone: colour blobs on noise, learnable in a few steps."""

import hashlib
from pathlib import Path

import numpy as np

from fastres.data.manifest import (
    ClassInfo,
    Manifest,
    digest_of_classes,
    digest_of_files,
    save_manifest,
    sha256_of,
)


def blobs(count: int, side: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """u8 [count, side, side, 3] and labels i64 [count], in class order: a class is a hue and a stripe direction."""
    rng = np.random.default_rng(seed)
    labels = np.sort(np.arange(count) % classes)
    images = rng.normal(128, 25, (count, side, side, 3))
    grid = np.arange(side)
    for i, label in enumerate(labels):
        stripes = np.sin((grid[:, None] if label % 2 else grid[None, :]) * 1.5 + rng.uniform(0, 6)) * 40
        images[i] += stripes[..., None]
        images[i, ..., label % 3] += 20 + 15 * (label // 3)
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def pack(
    folder: Path,
    *,
    side: int = 16,
    classes: int = 4,
    train: int = 40,
    val: int = 20,
    test: int = 6,
    ids: tuple[str, ...] = (),
) -> Path:
    """A packed folder as preprocess/pack.py would leave it, without the packer. `ids`: of the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    splits, names = {}, []
    for seed, (split, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        images, labels = blobs(count, side, classes, seed)
        np.save(folder / f"{split}.images.npy", images)
        (folder / f"{split}.files.txt").write_text("".join(f"{split}/images/{split}_{i}.JPEG\n" for i in range(count)))
        names += [f"{split}.images.npy", f"{split}.files.txt"]
        if split != "test":
            np.save(folder / f"{split}.labels.npy", labels)
            names.append(f"{split}.labels.npy")
        pixels = hashlib.sha256(images.tobytes()).hexdigest()
        splits[split] = {"count": count, "labelled": split != "test", "pixels": pixels}
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names}
    infos = tuple(ClassInfo(ids[c] if ids else f"n{c:08d}", f"class {c}") for c in range(classes))
    digest = digest_of_classes(info.wnid for info in infos)
    save_manifest(folder, Manifest(side, infos, splits, files, digest_of_files(files), digest, {"kind": "test"}, {}))
    return folder
