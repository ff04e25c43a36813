"""How fast a stage trains, as numbers on the host: none of them waits for the device."""

from typing import TYPE_CHECKING

import torch

from fastres.engine.peak import mfu_pct, peak_flops

if TYPE_CHECKING:
    from fastres.stage_run import StageRun


class Gauges:
    """Reads the speed of one stage. What a machine cannot tell is left out of the readings, not guessed."""

    def __init__(self, stage: "StageRun") -> None:
        self.stage = stage
        precision = stage.run.precision
        self.device = precision.device if precision.device.type == "cuda" else None
        self.devices, self.flop, self.peak = stage.run.world.size, 0, None
        if self.device is not None:
            self.peak = peak_flops(torch.cuda.get_device_name(self.device), precision.name)
        if self.peak is not None:
            from fastres.model.compute import training_flop
            from fastres.model.network import describe

            architecture = describe(stage.run.network.state_dict())
            self.flop = training_flop(architecture, stage.row.train, stage.geometry.crop)

    def read(self) -> dict[str, float]:
        """img_per_s (steady, of the stage; absent while it warms up), data_wait_pct (share of the epoch's training
        time so far in which the loop had no batch), and on a GPU gpu_mem_gb (most so far, 10^9 bytes) and mfu_pct
        (where its peak is known)."""
        stage, found = self.stage, {}
        img_per_s, train_s = stage.rate.img_per_s, stage.train_s
        if img_per_s is not None:
            found["img_per_s"] = img_per_s
        if train_s > 0:
            found["data_wait_pct"] = wait_pct(stage.epoch_wait_s, train_s)
        if self.device is not None:
            found["gpu_mem_gb"] = torch.cuda.max_memory_allocated(self.device) / 1e9
        if self.peak is not None and img_per_s is not None:
            found["mfu_pct"] = mfu_pct(self.flop, img_per_s, self.peak, self.devices)
        return found


def wait_pct(wait_s: float, train_s: float) -> float | None:
    """Share of the training time in which the loop waited for its next batch, in %; None before any training."""
    return 100 * wait_s / train_s if train_s > 0 else None
