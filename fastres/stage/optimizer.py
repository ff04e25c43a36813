"""The rule that updates what learns."""

from fnmatch import fnmatchcase

import torch
from torch import nn

from fastres.machine.errors import MachineError, UsageError
from fastres.schedules.types import Optimizer, Stage
from fastres.stage.pull import HEAD


def groups_of(network: nn.Module, stage: Stage) -> list[dict]:
    """What learns, in groups of one `factor`: a group's rate is the stage's times it. `network` is frozen already.

    A parameter's factor is that of the first pattern of `stage.lr_factors` that its name matches, else 1. In a
    stage with a `pull` the trunk's groups are marked as pulled, and have no weight decay. UsageError for a pattern that
    decides over nothing.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    idle = set(stage.lr_factors)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            pattern = next((p for p in stage.lr_factors if fnmatchcase(name, p)), None)
            idle.discard(pattern)
            factor, pulled = stage.lr_factors[pattern] if pattern else 1.0, stage.pull > 0 and not name.startswith(HEAD)
            groups.setdefault((factor, pulled), []).append(parameter)
    if idle:
        raise UsageError(
            f"stage {stage.name}: lr_factors pattern {sorted(idle)[0]!r} decides over no learning parameter; the stage "
            f"trains {', '.join(stage.train)}, and the first pattern that matches counts"
        )
    if stage.pull and not any(pulled for _, pulled in groups):
        raise UsageError(f"stage {stage.name}: pull is {stage.pull:g}, but only the head learns; expected 0")
    marks = {True: {"pulled": True, "weight_decay": 0.0}, False: {}}
    return [{"params": mine, "factor": factor, **marks[pulled]} for (factor, pulled), mine in groups.items()]


def optimizer_of(network: nn.Module, stage: Stage, settings: Optimizer, lr: float) -> torch.optim.Optimizer:
    """The rule over what learns in `stage`, `network` being frozen already; groups and errors as in groups_of."""
    return sgd(groups_of(network, stage), settings, lr)


def sgd(parameters: list[nn.Parameter] | list[dict], settings: Optimizer, lr: float) -> torch.optim.Optimizer:
    """SGD as fb.resnet.torch: Nesterov momentum, no dampening, decay on all that learns, where a group says no other.

    `parameters`: groups as groups_of makes them, or what all learns at one rate.

    torch's fused kernel, on a CPU too (there it took three quarters of the time of its loops at width 16, 0.6 at 64);
    apex's FusedSGD where `optimizer.impl` asks for it (MachineError where apex is not built or there is no GPU).
    """
    rule = {"lr": lr, "momentum": settings.momentum, "nesterov": settings.nesterov}
    rule["weight_decay"] = settings.weight_decay
    groups = parameters if isinstance(parameters[0], dict) else [{"params": parameters, "factor": 1.0}]
    on_gpu = groups[0]["params"][0].is_cuda
    if settings.impl == "apex":
        return _apex_sgd()(groups, **rule, set_grad_none=True)  # as torch does
    optimizer = torch.optim.SGD(groups, **rule, fused=True)
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
    remedy = (
        "build it from NVIDIA/apex with its CUDA extensions (APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install "
        "--no-build-isolation .), or drop --set optimizer.impl=apex"
    )
    if not torch.cuda.is_available():
        raise MachineError(f"optimizer.impl apex: its FusedSGD runs on a GPU and none is visible; {remedy}")
    try:
        import amp_C  # noqa: F401 - the compiled half; without it FusedSGD fails at its first step
        from apex.optimizers import FusedSGD
    except ImportError as error:
        raise MachineError(f"optimizer.impl apex: not installed here ({error}); {remedy}") from error
    return FusedSGD
