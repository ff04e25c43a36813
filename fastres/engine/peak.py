"""What a GPU could compute at most, for the share of it that a run reaches (model FLOPs utilisation, MFU).

Dense figures without sparsity, in TFLOP/s, from NVIDIA's data sheets; 16-bit is tensor cores with float32 sums, fp32
is plain float32, since this project allows no TF32. None: not on tensor cores there, or not known.
"""

import re

# word of torch's device name   fp16    bf16   fp32
PEAKS = (
    (r"H200",                   989.0,  989.0,  67.0),
    (r"H100 PCIe",              756.0,  756.0,  51.0),
    (r"H100 80GB HBM3",         989.0,  989.0,  67.0),
    (r"A100",                   312.0,  312.0,  19.5),
    (r"L40S",                   362.0,  362.0,  91.6),
    (r"L4",                     121.0,  121.0,  30.3),
    (r"A10",                    125.0,  125.0,  31.2),
    (r"V100",                   125.0,  None,   15.7),
    (r"T4",                      65.0,  None,    8.1),
)  # fmt: skip


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s of the device that torch calls `device_name` in fp16, bf16 or fp32; None where it is not in the table."""
    column = ("fp16", "bf16", "fp32").index(precision)
    for word, *peaks in PEAKS:
        if re.search(rf"(?<![A-Za-z0-9]){word}(?![A-Za-z0-9])", device_name):
            peak = peaks[column]
            return None if peak is None else peak * 1e12
    return None


def mfu_pct(flop_per_image: float, img_per_s: float, peak: float, devices: int = 1) -> float:
    """Share in % of what `devices` could compute that the network's own arithmetic takes at `img_per_s` in all."""
    return 100 * flop_per_image * img_per_s / (peak * devices)
