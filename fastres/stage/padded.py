"""Steps whose images have a fourth channel, of zeros, and whose first layer has weights of zero for it: kernels of
convolutions read four numbers at a time where three fit badly. The function is the same.

cuDNN pads by itself where it finds that better, so nobody knows whether this gains anything: `step=auto` tries it out
on a GPU, in the kind that is the fastest there (choosing/choose.py).
"""

from dataclasses import replace

from fastres import views
from fastres.stage.captured import CapturedStep
from fastres.stage.fused import CapturedFusedStep, FusedStep
from fastres.stage.step import EagerStep

CHANNELS = 4


class _Padded:
    """Mixed in before a kind of step. The units of the network pad their weights (model/units.py)."""

    def seen(self, plan: views.TrainPlan) -> views.TrainPlan:
        return replace(super().seen(plan), channels=CHANNELS)


class PaddedStep(_Padded, EagerStep):
    """EagerStep of padded images."""


class CapturedPaddedStep(_Padded, CapturedStep):
    """CapturedStep of padded images."""


class FusedPaddedStep(_Padded, FusedStep):
    """FusedStep of padded images; where the first layer is frozen, it is torch's."""


class CapturedFusedPaddedStep(_Padded, CapturedFusedStep):
    """CapturedFusedStep of padded images; where the first layer is frozen, it is torch's."""
