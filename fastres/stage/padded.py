"""Steps whose images have a fourth channel, of zeros, and whose first layer has weights of zero for it: kernels of
convolutions read four numbers at a time where three fit badly. The function is the same.

cuDNN pads by itself where it finds that better, so nobody knows whether this gains anything: `step=auto` tries it out
on a GPU, in the kind that is the fastest there (choosing/choose.py).
"""

from fastres.stage.captured import CapturedStep
from fastres.stage.fused import CapturedFusedStep, FusedStep
from fastres.stage.step import EagerStep

CHANNELS = 4


class PaddedStep(EagerStep):
    """EagerStep of padded images."""

    channels = CHANNELS


class CapturedPaddedStep(CapturedStep):
    """CapturedStep of padded images."""

    channels = CHANNELS


class FusedPaddedStep(FusedStep):
    """FusedStep of padded images."""

    channels = CHANNELS


class CapturedFusedPaddedStep(CapturedFusedStep):
    """CapturedFusedStep of padded images."""

    channels = CHANNELS
