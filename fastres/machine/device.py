"""The device a command computes on, its number format, and whether the same command must give the same bits again.

Mixed precision: weights and optimiser stay float32, `Precision` says what the network computes in.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fastres.machine.errors import MachineError, UsageError
from fastres.machine.facts import cpuinfo
from fastres.machine.gpu import check_architecture, is_usable, why_unused
from fastres.machine.versions import check_torch

CHOICES = ("auto", "fp32", "bf16", "fp16")
TENSOR_CORES = (7, 0)  # the first compute capability that has them
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
    """`auto` is bf16 where the hardware computes it (not where it is emulated); else fp16 on a GPU with tensor cores
    (of a T4: 65 TFLOP/s instead of 8), and fp32 elsewhere.

    UsageError for an unknown name; MachineError for fp16 on a CPU, which would be slower than fp32 and less exact.
    """
    if wanted not in CHOICES:
        raise UsageError(f"--precision {wanted}: unknown, expected one of {', '.join(CHOICES)}")
    if wanted == "fp16" and device.type == "cpu":
        raise MachineError("--precision fp16: this CPU would emulate it; use bf16 or fp32, or a GPU")
    if wanted == "auto":
        half = "fp16" if device.type == "cuda" and torch.cuda.get_device_capability(device) >= TENSOR_CORES else "fp32"
        wanted = "bf16" if has_bf16(device) else half
    return Precision(wanted, device)


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(cpuinfo().split())
    return False


def choose_device(wanted: str) -> torch.device:
    """`auto` is the first CUDA device, else the CPU.

    MachineError if the device is not there, torch is too old, or torch cannot use the GPU that is there: then only
    `cpu` takes the CPU.
    """
    check_torch()
    usable, unused = is_usable()[0], why_unused()
    if unused and wanted != "cpu":
        raise MachineError(f"--device {wanted}: {unused}, or use --device cpu")
    if wanted == "auto":
        wanted = "cuda" if usable else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"--device {wanted}: unknown, expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not usable or (device.index or 0) >= torch.cuda.device_count()):
        raise MachineError(f"--device {wanted}: no such GPU here; use --device cpu, or check nvidia-smi and the driver")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {wanted}: not supported, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        check_architecture(device)
        torch.cuda.set_device(device)  # Triton, streams and graphs use the current device, not their tensors'
        use_fast_kernels()
    return device


def use_fast_kernels() -> None:
    """How cuDNN computes for us on a GPU, for the whole process; nothing to a CPU."""
    # every stage has one input shape, so cuDNN's search for the fastest kernel is paid once a stage
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False  # fp32 is to mean fp32; nobody picks it for speed


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Restore torch's settings of the whole process, which a GPU and `make_deterministic` change, when the block ends.

    Not for two threads at once: each would restore what the other has set.
    """
    kept = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    flags = _flags()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(kept[0])
        torch.utils.deterministic.fill_uninitialized_memory = kept[1]
        for place, name, value in flags:
            if getattr(place, name) != value:  # to set one again may change what others follow
                setattr(place, name, value)


def _flags() -> list[tuple]:
    """(place, name, value) of what cuDNN and cuBLAS are told for the whole process."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    fields = [(cudnn, "deterministic"), (cudnn, "benchmark"), (cudnn, "allow_tf32"), (matmul, "allow_tf32")]
    try:
        return [(place, name, getattr(place, name)) for place, name in fields]
    except RuntimeError:  # the caller has set torch's newer fp32_precision: allow_tf32 cannot be read, nor needs it
        return [(place, name, getattr(place, name)) for place, name in fields[:2]]


def make_deterministic() -> None:
    """From now on every torch operation of this process is deterministic or raises; slower on a GPU, nothing on a CPU.

    cuDNN's search for the fastest kernel ends, since its choice may differ from run to run; cuBLAS gets the workspace
    that its documentation asks for, which must be known before its first call. A CPU needs none of it: there a run
    repeats to the bit as long as torch, the number of threads and the processor's kind are the same.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, changes no result, costs bandwidth
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
