"""Steps whose network runs in the fused forms for CUDA GPUs: cuDNN's convolutions and Triton's norms (model/units.py).

Nobody has run or measured them on a GPU yet, so no run takes them unasked but one whose own trial found them faster
(choosing/choose.py); --set step=fused, or captured-fused, asks for them.
"""

import torch

from fastres.machine.device import Precision
from fastres.machine.errors import MachineError, UsageError
from fastres.model.freeze import batch_norms
from fastres.model.network import ResNet
from fastres.model.norm.function import fits, has_triton
from fastres.model.units import CUDA_FUSED
from fastres.stage.captured import CapturedStep
from fastres.stage.step import EagerStep

_ELSE = "use --set step=eager"


def check_fused(device: torch.device, sync_bn: bool = False) -> None:
    """Before any training: whether the fused forms can run on `device`.

    MachineError without a GPU or Triton; UsageError for a BatchNorm over several processes, which torch's runs.
    """
    if device.type != "cuda":
        raise MachineError(f"step fused: needs a GPU, found {device.type}; {_ELSE}")
    if not has_triton(device):
        raise MachineError(
            f"step fused: needs Triton, which comes with torch's CUDA build; pip install torch, or {_ELSE}"
        )
    if sync_bn:
        raise UsageError(f"step fused: its BatchNorm sees one process's images, expected no --sync-bn; {_ELSE}")


def check_norms(network: ResNet) -> None:
    """UsageError for a BatchNorm that the fused one is no replacement for."""
    if not all(fits(norm) for norm in batch_norms(network)):
        raise UsageError(
            "step fused: found a BatchNorm without a momentum, affine part or statistics, or not in float32, expected "
            f"torchvision's; {_ELSE}"
        )


class _Fused:
    """Mixed in before a kind of step."""

    forms = CUDA_FUSED

    def __init__(self, network: ResNet, optimizer: torch.optim.Optimizer, precision: Precision, *loss) -> None:
        check_fused(precision.device)
        check_norms(network)
        super().__init__(network, optimizer, precision, *loss)


class FusedStep(_Fused, EagerStep):
    """EagerStep in the fused forms."""


class CapturedFusedStep(_Fused, CapturedStep):
    """CapturedStep of the fused forms. Warming up, the convolutions are tried and the norms compiled."""


def is_fused(kind: type[EagerStep]) -> bool:
    return issubclass(kind, _Fused)
