"""The engines by name, one contract behind all: the Split of batch.py.

Another engine is its file beside this one and its name in both tables below; the writer of its format is one of
preprocess/writers. Its library, if it needs one, is in OPTIONAL of libraries.py and a row of machine/extras.py.
`--engine`, `bench loaders` and the contract's tests read ENGINES.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from fastres.data.batch import Split
from fastres.data.dali import open_dali
from fastres.data.ffcv import open_ffcv
from fastres.data.manifest import Manifest
from fastres.data.resident import Resident
from fastres.machine.errors import DataError, MachineError
from fastres.machine.memory import free_bytes, free_gpu_bytes, processes_here
from fastres.machine.packer import COMMAND

Opener = Callable[[Path, Manifest, str, torch.device], Split]
ENGINES: dict[str, Opener] = {"resident": Resident, "ffcv": open_ffcv, "dali": open_dali}
PIXEL_FILES = {"resident": "images.npy", "ffcv": "beton", "dali": "tar"}  # <split>.<this>


def open_split(engine: str, packed: Path, manifest: Manifest, split: str, device: torch.device) -> Split:
    """DataError if the packed files are not what was packed, MachineError if the engine's library is missing or
    memory is not enough."""
    if split in manifest.splits and f"{split}.{PIXEL_FILES[engine]}" not in manifest.files:
        raise DataError(
            f"{packed}: packed for {', '.join(packed_for(manifest, split)) or 'no engine'}, not for {engine}; run "
            f"`{COMMAND} --engines {engine}` for this folder, or use another --engine"
        )
    try:
        return ENGINES[engine](packed, manifest, split, device)
    except MemoryError as error:
        need = manifest.files.get(f"{split}.{PIXEL_FILES[engine]}", {}).get("bytes", 0)
        raise MachineError(too_large(packed, [split], need, free_bytes())) from error


def check_memory(engine: str, packed: Path, manifest: Manifest, splits: Sequence[str], device: torch.device) -> None:
    """MachineError where the images of `splits` do not fit the memory that is free now, of the host or of the GPU;
    before anything of them is read. Only the resident engine keeps them."""
    sizes = [manifest.files.get(f"{split}.images.npy", {}).get("bytes", 0) for split in splits]
    if engine != "resident" or not any(sizes):
        return
    on_gpu = device.type == "cuda"
    # on the way to a GPU the host holds one split at a time; every process of this machine does the same
    kept = [(max(sizes) if on_gpu else sum(sizes)) * processes_here(), free_bytes(), "memory"]
    wanted = [kept, [sum(sizes), free_gpu_bytes(device), "GPU memory"]] if on_gpu else [kept]
    for need, have, what in wanted:
        if have is not None and need > have:
            raise MachineError(too_large(packed, splits, need, have, what))


def too_large(packed: Path, splits: Sequence[str], need: int, have: int | None, what: str = "memory") -> str:
    """The sentence for images that do not fit."""
    free = "less is free" if have is None else f"{have / 1e9:.2f} GB are free"
    return (
        f"{packed}: the images of {' and '.join(splits)} need {need / 1e9:.2f} GB of {what}, {free}; read them from "
        f"disk instead with --engine ffcv ({COMMAND} --engines ffcv packs for it), or free some memory"
    )


def packed_for(manifest: Manifest, split: str) -> list[str]:
    """The engines that have this split's pixels here."""
    return [engine for engine, ending in PIXEL_FILES.items() if f"{split}.{ending}" in manifest.files]
