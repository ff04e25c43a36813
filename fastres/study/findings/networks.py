"""The networks that runs ended with, and the images that they were judged on, for what a report asks of them."""

from pathlib import Path

import torch

from fastres.data.batch import Split
from fastres.data.engines import open_split, packed_for
from fastres.data.manifest import Manifest, load_manifest
from fastres.machine.device import choose_device
from fastres.machine.errors import DataError
from fastres.model.metadata import read_metadata
from fastres.model.network import ResNet
from fastres.model.reading import read_weights
from fastres.model.target import WEIGHTS
from fastres.model.weights import network_from
from fastres.schedules.types import ViewSettings
from fastres.study.findings.runs import Trained
from fastres.views.geometry import Geometry


def scorable(runs: list[Trained]) -> list[Trained]:
    """Those that are done and still have their weights."""
    return [run for run in runs if run.status == "done" and (run.folder / WEIGHTS).exists()]


def opened(runs: list[Trained], data: Path | None, device: str) -> tuple[Split, Manifest]:
    """The validation split that `runs` were judged on; `data`: the packed folder; None: the runs' own.

    DataError where it is not their data set.
    """
    packed, on = data or Path(runs[0].summary["data"]), choose_device(device)
    manifest = load_manifest(packed)
    if manifest.content_digest != runs[0].content_digest:
        raise DataError(f"{packed}: is not the data set {runs[0].folder} was trained on; pass that one with --data")
    return open_split(next(iter(packed_for(manifest, "val"))), packed, manifest, "val", on), manifest


def loaded(run: Trained, split: Split, side: int) -> tuple[ResNet, Geometry, ViewSettings]:
    """A run's final network where `split` is, and what it is to be shown of images of `side` pixels."""
    weights = run.folder / WEIGHTS
    metadata = read_metadata(weights)
    network = network_from(read_weights(weights), weights).to(split.device, memory_format=torch.channels_last)
    geometry = Geometry(side, metadata["upscale"], metadata.get("whole", False))
    return network, geometry, ViewSettings(convention=metadata["convention"])
