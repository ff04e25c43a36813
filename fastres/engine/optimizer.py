"""The rule that updates what learns."""

import torch
from torch import nn

from fastres.errors import MachineError
from fastres.schedule_types import Optimizer


def sgd(parameters: list[nn.Parameter], settings: Optimizer, lr: float) -> torch.optim.Optimizer:
    """SGD as fb.resnet.torch: Nesterov momentum, no dampening, decay on everything that learns.

    torch's fused kernel on a GPU, its foreach one on a CPU; apex's FusedSGD where `optimizer.impl` asks for it
    (MachineError where apex is not built or there is no GPU).
    """
    rule = {"lr": lr, "momentum": settings.momentum, "nesterov": settings.nesterov}
    rule["weight_decay"] = settings.weight_decay
    on_gpu = parameters[0].is_cuda
    if settings.impl == "apex":
        return _apex_sgd()(parameters, **rule)
    optimizer = torch.optim.SGD(parameters, **rule, fused=on_gpu or None, foreach=None if on_gpu else True)
    if on_gpu:
        start_momentum(optimizer)
    return optimizer


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Momentum buffers of zeros. torch's fused kernel allocates missing ones at the first step and leaves them
    unwritten when that step is skipped, as fp16's first one often is: the second would then start from garbage."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group["momentum"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _apex_sgd() -> type[torch.optim.Optimizer]:
    """NVIDIA's FusedSGD; PyPI's package named apex is something else."""
    remedy = "build it from NVIDIA/apex with its CUDA extensions (APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install " \
             "--no-build-isolation .), or drop --set optimizer.impl=apex"  # fmt: skip
    if not torch.cuda.is_available():
        raise MachineError(f"optimizer.impl apex: its FusedSGD runs on a GPU and none is visible; {remedy}")
    try:
        import amp_C  # noqa: F401 - the compiled half; without it FusedSGD fails at its first step
        from apex.optimizers import FusedSGD
    except ImportError as error:
        raise MachineError(f"optimizer.impl apex: not installed here ({error}); {remedy}") from error
    return FusedSGD
