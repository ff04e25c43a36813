"""What the manifest says of the files, once they are on the disk, and of the libraries that made them."""

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from PIL import features

from fastres.data.decode_pool import cores
from fastres.data.manifest import sample_of, sha256_of
from fastres.machine.console import Progress
from preprocess.disk import sync_file


def finish_files(folder: Path, names: list[str]) -> dict[str, dict]:
    """Every file on the disk and read back: the manifest's entries. Several files at a time."""

    def finish(path: Path) -> str:
        sync_file(path)
        return sha256_of(path)

    sizes = {name: (folder / name).stat().st_size for name in sorted(names)}
    files = {}
    with (
        Progress(sum(sizes.values()), "sync and hash", "B", lines=True) as progress,
        ThreadPoolExecutor(cores()) as pool,
    ):
        digests = {name: pool.submit(finish, folder / name) for name in sizes}
        for name, size in sizes.items():
            files[name] = {"bytes": size, "sha256": digests[name].result(), "sample": sample_of(folder / name)}
            progress.update(size)
    return files


def versions(packer: int) -> dict[str, str]:
    """What the pixels may depend on. packer: the packer's own version."""
    return {
        "packer": str(packer),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "libjpeg-turbo": str(features.version("libjpeg_turbo")),
    }
