"""How others write a fine-tuning step: torchvision's reference loop, the same compiled, timm's model, Lightning.

Every maker returns `step(x, y)`: one optimiser update from network input [B, 3, H, H] (channels-last) and labels.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from fastres.machine.device import Precision
from fastres.model.fold import compiling
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build, replace_stem
from fastres.schedules.types import Stage

Step = Callable[[torch.Tensor, torch.Tensor], None]


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)


def torchvision_loop(
    architecture: Architecture,
    stage: Stage,
    precision: Precision,
    *,
    compiled: bool = False,
    no_grad: bool = False,
    whole_graph: bool = False,
    network: nn.Module | None = None,
) -> Step:
    """zero_grad, forward under autocast, cross-entropy, backward, step; the network channels-last.

    no_grad      FC only: features under torch.no_grad(), then the head (how careful people write it)
    whole_graph  FC only: everything keeps requires_grad, only the head is in the optimiser (how most write it)
    """
    network = network or build(architecture)
    network = network.to(precision.device, memory_format=torch.channels_last)
    learning = set_trainable(network, stage.train)
    training_mode(network, stage)
    if whole_graph:
        network.requires_grad_(True)
    scaler, optimizer = precision.scaler(), _sgd(learning)
    head = network.fc if no_grad else None
    if no_grad:
        network.fc = nn.Identity()
    forward = torch.compile(network, dynamic=False) if compiled else network

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        with compiling("torchvision compiled") if compiled else nullcontext():
            update(x, y)

    def update(x: torch.Tensor, y: torch.Tensor) -> None:
        if whole_graph:
            network.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            if no_grad:
                with torch.no_grad():
                    features = forward(x)
                logits = head(features)
            else:
                logits = forward(x)
        scaler.scale(functional.cross_entropy(logits.float(), y)).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def timm_loop(architecture: Architecture, stage: Stage, precision: Precision) -> Step:
    """timm's own ResNet in the same loop. ImportError where timm is not installed."""
    return torchvision_loop(architecture, stage, precision, network=timm_network(architecture))


def timm_network(architecture: Architecture) -> nn.Module:
    """timm's ResNet of any width and either stem, with torchvision's keys and shapes and fresh weights.

    timm fixes the plain stem at 64 channels; a deep one takes a width, and leaves only its convolutions to replace.
    """
    import timm

    width = architecture.width
    network = timm.create_model(
        architecture.arch,
        num_classes=architecture.classes,
        channels=tuple(width * k for k in (1, 2, 4, 8)),
        stem_type="deep",
        stem_width=width // 2,
    )
    network.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
    if architecture.stem == "3x3":
        replace_stem(network)
    network.load_state_dict(build(architecture).state_dict())  # strict: an error if the two are not the same network
    return network


def lightning_loop(architecture: Architecture, stage: Stage, precision: Precision) -> Step:
    """Lightning Fabric around torchvision's network. ImportError where it is not installed."""
    from lightning.fabric import Fabric

    names = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    fabric = Fabric(accelerator=precision.device.type, devices=1, precision=names[precision.name])
    fabric.launch()
    network = build(architecture)
    learning = set_trainable(network, stage.train)
    training_mode(network, stage)
    model, optimizer = fabric.setup(network, _sgd(learning))

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(functional.cross_entropy(model(x).float(), y))
        optimizer.step()

    return step


def peers(stage: Stage, compiled: bool) -> list[tuple[str, str, Callable[..., Step]]]:
    """Who takes part in a kind of stage: name, what is not equal, maker of (architecture, stage, precision)."""
    head_only = stage.train == ("fc.*",)
    loop = partial(torchvision_loop, no_grad=head_only)
    whole_graph = partial(torchvision_loop, whole_graph=True)
    return [
        ("torchvision loop", "no_grad features" if head_only else "", loop),
        *([("torchvision loop, whole graph", "backbone in the graph", whole_graph)] if head_only else []),
        *([("torchvision compiled", "", partial(loop, compiled=True))] if compiled else []),
        ("timm", "", timm_loop),
        ("Lightning Fabric", "", lightning_loop),
    ]
