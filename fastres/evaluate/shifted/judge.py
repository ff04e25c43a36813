"""A network's error on each corruption of a labelled split, by the centre crop."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fastres import views
from fastres.data.batch import Batch, Split
from fastres.evaluate import combining
from fastres.evaluate.scores import check_scores, folded, scores_on_device
from fastres.evaluate.shifted.corruptions import CORRUPTIONS, NAMES, corrupt
from fastres.machine.console import Progress, table
from fastres.machine.device import Precision
from fastres.machine.processes.world import World
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry


@dataclass(frozen=True)
class Shifted:
    """Top-1 errors in % by the centre crop: on the photos as they are, and on each corruption by its name."""

    clean: float
    errors: dict[str, float]

    @property
    def mean(self) -> float:
        """Over the fifteen, each counting alike."""
        return sum(self.errors.values()) / len(self.errors)

    def of_kind(self, kind: str) -> float:
        """The mean over a kind's corruptions; `kind`: of CORRUPTIONS."""
        mine = [self.errors[name] for name in CORRUPTIONS[kind]]
        return sum(mine) / len(mine)

    @classmethod
    def of(cls, plain: dict) -> "Shifted":
        """From what plain() made. ValueError for anything else."""
        numbers = [plain.get("clean"), *(plain.get("errors") or {}).values()]
        known = tuple(plain.get("errors") or ()) == NAMES
        if not known or not all(type(number) in (int, float) and 0 <= number <= 100 for number in numbers):
            raise ValueError(f"no errors in % on {len(NAMES)} corruptions")
        return cls(plain["clean"], plain["errors"])

    def plain(self) -> dict:
        return {"clean": self.clean, "mean": self.mean, "errors": self.errors}

    def as_text(self, count: int) -> str:
        """A table for the terminal; `count`: images of the split."""
        rows = [(kind, name, self.errors[name]) for kind, names in CORRUPTIONS.items() for name in names]
        rows = [("", "none", self.clean), *rows, ("", "mean of the fifteen", self.mean)]
        header = ("kind", "corruption", "top-1 err %")
        return f"{count} images, corrupted in one way at a time; centre crop\n{table(rows, header)}"


class _Corrupted:
    """A split whose images are corrupted when they are delivered; ids and labels stay."""

    def __init__(self, data: Split, name: str) -> None:
        self._data, self._name, self.labels, self.device = data, name, data.labels, data.device

    def __len__(self) -> int:
        return len(self._data)

    def batches(self, ids: np.ndarray, batch_size: int) -> Iterator[Batch]:
        for batch in self._data.batches(ids, batch_size):
            images = corrupt(batch.images[batch.rows].cpu().numpy(), batch.ids.tolist(), self._name)
            rows = torch.arange(len(images), device=self.device)
            yield batch._replace(images=torch.from_numpy(images).to(self.device), rows=rows)


@torch.no_grad()
def judge_shifted(
    network: nn.Module,
    data: Split,
    geometry: Geometry,
    settings: ViewSettings,
    precision: Precision,
    world: World | None = None,
    source: object = "",
) -> Shifted:
    """Errors of `network` on the labelled split `data`; all processes of a `world` share the work.

    DataError where scores are not finite, naming `source`, the weights.
    """
    world, plan = (
        world or World(data.device),
        views.TestPlan(geometry=geometry, settings=settings, dtype=precision.dtype),
    )
    world.same_statistics(network)
    network, found = folded(network, precision), {}
    mine = -(-len(data) // world.size)
    with Progress((len(NAMES) + 1) * mine, "corrupted photos") as progress:
        for name in (None, *NAMES):
            split = data if name is None else _Corrupted(data, name)
            scores = scores_on_device(network, split, plan, precision, world=world, progress=progress)
            check_scores(scores, source, precision)
            ranking = combining.combine(scores, "expsum").cpu()
            found[name] = combining.top_errors(ranking, data.labels.cpu())["top1"]
    return Shifted(found.pop(None), found)
