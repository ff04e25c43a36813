"""The stem before any training, on the small world: the demo's network where its surgery is done, after stage `all`.

The surgery does two things, told apart here: it makes the filters smaller, and it drops the max-pool. The small
filters (`antialias`) alone stay within 10 points of the error before. The missing max-pool, which nothing compensates
(as in the paper), costs more than 10 by itself: also with the old filters, unscaled, at the same places, and with
`pullback`, which answers most like them. So `stem:antialias`, which is both, is beyond 10. Training recovers it.

Seen when written: 32.6 % before; antialias 56.3, pullback 51.5, torch7 and torch7-raw 74.8, blank 92.4 (chance 95);
antialias with its pool kept 37.3, the old filters without it 50.6.
"""

import json
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fastres import views
from fastres.data.manifest import load_manifest
from fastres.data.resident import Resident
from fastres.evaluate import combining
from fastres.machine.device import Precision
from fastres.machine.processes.world import World
from fastres.model.freeze import recalibrate
from fastres.model.weights import network_from
from fastres.schedules import DEMO
from fastres.stage.operate import RECALIBRATION_VIEWS, operate
from fastres.stage.setting import Setting
from fastres.train.stage_ends import Start
from fastres.views.geometry import Geometry

FP32 = Precision("fp32", torch.device("cpu"))


class Stems:
    """The demo's network after two stages, with any stem, its BatchNorms recalibrated as the third stage says."""

    def __init__(self, world, run):
        self.packed, self.manifest = world, load_manifest(world)
        self.train, self.val = (Resident(world, self.manifest, s, FP32.device) for s in ("train", "val"))
        self.state, _ = Start(run, 2, json.loads((run / "config.json").read_text())).load()

    def network(self) -> nn.Module:
        return network_from(self.state, "the demo after two stages").to(memory_format=torch.channels_last)

    def setting(self, init: str) -> Setting:
        stages = (*DEMO.stages[:2], replace(DEMO.stages[2], surgery=(f"stem:{init}",)))
        return Setting(
            schedule=replace(DEMO, stages=stages),
            seed=0,
            packed=self.packed,
            manifest=self.manifest,
            train=self.train,
            val=self.val,
            precision=FP32,
            world=World(FP32.device),
        )

    def operated(self, init: str, pool: nn.Module | None = None) -> float:
        """Error in % after the surgery `stem:init`; with `pool` instead of no pool."""
        network = self.network()
        operate(network, 2, self.setting(init))
        if pool is not None:
            network.maxpool = pool
            self.recalibrate(network, 1)
        return self.error(network, 1)

    def recalibrate(self, network: nn.Module, upscale: int) -> None:
        recalibrate(
            network, self.setting("blank").inputs(2, upscale, RECALIBRATION_VIEWS, torch.float32), FP32.autocast
        )

    @torch.no_grad()
    def error(self, network: nn.Module, upscale: int) -> float:
        """Centre-crop top-1 error in % on the validation images; module by module: no fast form knows these pools."""
        plan = views.TestPlan(geometry=Geometry(32, upscale), settings=DEMO.views)
        network.eval()
        logits = [
            network(views.apply(batch.images, batch.rows, batch.ids, plan))
            for batch in self.val.batches(np.arange(len(self.val)), 250)
        ]
        return combining.top_errors(torch.cat(logits), self.val.labels)["top1"]
