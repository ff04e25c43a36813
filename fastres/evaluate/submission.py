"""Answers for a split whose labels are elsewhere: one line an image."""

from pathlib import Path

import torch

from fastres.data.manifest import Manifest
from fastres.evaluate.answers import likeliest
from fastres.machine.files import write_atomic


def write_submission(path: Path, files: list[str], ranking: torch.Tensor, manifest: Manifest) -> None:
    """`test_0.JPEG n01443537` lines in the order of the split: the image, the id of its likeliest class.

    An image is named by its file name where all lie in one folder, else by its path below the folder that all lie in:
    the split's, or the whole path where a CSV named images from here and there.
    """
    if len({file.rpartition("/")[0] for file in files}) == 1:
        names = [file.rpartition("/")[2] for file in files]
    elif len({file.partition("/")[0] for file in files}) == 1:
        names = [file.partition("/")[2] for file in files]
    else:
        names = files
    best = likeliest(ranking, 1)[1][:, 0].tolist()
    lines = [f"{name} {manifest.classes[c].wnid}\n" for name, c in zip(names, best, strict=True)]
    write_atomic(path, "".join(lines).encode())


def are_answers(content: bytes, manifest: Manifest) -> bool:
    """Whether each line ends with one of the data's ids and has something before it."""
    ends = tuple(f" {c.wnid}" for c in manifest.classes)
    return all(line.endswith(ends) for line in content.decode(errors="replace").splitlines())
