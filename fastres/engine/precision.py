"""Mixed precision: which number format the network computes in. Weights and optimiser stay float32."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch

from fastres.errors import MachineError, UsageError
from fastres.versions import check_torch

CHOICES = ("auto", "fp32", "bf16", "fp16")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """`name` is fp32, bf16 or fp16; `device` is where autocast applies."""

    name: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """What the views kernel writes and convolutions compute in."""
        return _DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager:
        """torch.autocast for fp16 and bf16; nothing for fp32."""
        if self.name == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, needed by fp16 alone (its smallest normal number is 6e-5); a pass-through otherwise."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`auto` is bf16 where the hardware computes it (not where it is emulated), else fp32.

    UsageError for an unknown name; MachineError for fp16 on a CPU, which would be slower than fp32 and less exact.
    """
    if wanted not in CHOICES:
        raise UsageError(f"--precision {wanted}: unknown, expected one of {', '.join(CHOICES)}")
    if wanted == "fp16" and device.type == "cpu":
        raise MachineError("--precision fp16: this CPU would emulate it; use bf16 or fp32, or a GPU")
    if wanted == "auto":
        wanted = "bf16" if has_bf16(device) else "fp32"
    return Precision(wanted, device)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text().split()
        except OSError:
            return False
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
    return False


def choose_device(wanted: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU. MachineError if the device is not there or torch is too old."""
    check_torch()
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"--device {wanted}: unknown, expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"--device {wanted}: no such GPU here; use --device cpu, or check nvidia-smi and the driver")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {wanted}: not supported, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)  # Triton, streams and graphs use the current device, not their tensors'
        # every stage has one input shape, so cuDNN's search for the fastest kernel is paid once a stage
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32; nobody picks it for speed
    return device
