"""The rate no training step can pass: where one is known.

An estimate from the shapes of ResNet-18's layers, at the 790 TFLOP/s (bf16) and 4.3 TB/s of an H200; not measured. Of
other networks, sizes, formats and machines no floor is stated.
"""

import re

from fastres.model.network import Architecture

GPU = "H200"
_WHOLE_GPU = re.compile(rf"\b{GPU}\b(?!.*\bMIG\b)")  # not a GH200, not a slice of one
H200 = {  # kind of stage -> img/s, for images of 64 px; GFLOP an image behind it
    "full": 54_000,  #       10.65, crop 224
    "full-small": 58_000,  # 10.20, crop 56
    "conv1": 100_000,  #      6.80, crop 56, the other layers frozen
    "fc": 174_000,  #         3.63, crop 224, forward only
}


def images_per_second(kind: str, architecture: Architecture, side: int, precision: str, gpu: str | None) -> int | None:
    """The floor of one kind of stage (`bench steps --stages`); None where it is not known. `gpu`: its name, or None."""
    known = architecture.arch == "resnet18" and architecture.width == 64 and side == 64 and precision == "bf16"
    return H200.get(kind) if known and _WHOLE_GPU.search(gpu or "") else None


def note(known: bool, gpu: str | None) -> str:
    """One line for under a chart's title."""
    if known:
        return f"dashed: floor of ResNet-18 on an {GPU}, estimated from layer shapes"
    if gpu is None:
        return f"no floor is drawn: none is known for a CPU, only for ResNet-18 on an {GPU}"
    return f"no floor is drawn where none is known: it is for ResNet-18 of width 64, 64 px, bf16, on an {GPU}"
