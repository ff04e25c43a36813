"""Dated folders of records in runs/."""

import re
from pathlib import Path


def record_folder(root: Path, name: str, machine: dict) -> Path:
    """Make root/<date>_<name>_<machine>, with -2, -3, ... behind it where records of that day exist: none is lost."""
    where = machine["gpu"] or f"{machine['processor']} {machine['cores']} cores"
    slug = re.sub(r"[^a-z0-9]+", "-", where.lower()).strip("-")
    root.mkdir(parents=True, exist_ok=True)
    folder, number = root / f"{machine['date']}_{name}_{slug}", 1
    while True:
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
            folder = root / f"{machine['date']}_{name}_{slug}-{number}"
