"""torchvision's residual networks at any width, with the paper's two stems.

Keys and shapes are torchvision's, so weights move between the two without translation. Three things differ when asked:
`width` scales every layer (64 is torchvision's own), stem "3x3" is section 3.4's replacement of the 7x7/2 convolution
and the max-pool by one 3x3/1 convolution, and plain18 is resnet18 without its shortcuts, which torchvision has not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fastres.model.dynamo_later import dynamo_later

with dynamo_later():
    from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class PlainBlock(BasicBlock):
    """BasicBlock without the shortcut: two layers, one behind the other."""

    def __init__(self, inplanes: int, planes: int, stride: int = 1, downsample=None, *others, **named) -> None:
        super().__init__(inplanes, planes, stride, None, *others, **named)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


BLOCKS = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
    "plain18": (PlainBlock, (2, 2, 2, 2)),
}
NO_SHORTCUTS = "no_shortcuts"  # a buffer [] that only a net of PlainBlocks has: shortcuts without weights leave no key


def has_shortcuts(arch: str) -> bool:
    return BLOCKS[arch][0] is not PlainBlock


@dataclass(frozen=True)
class Architecture:
    """All that decides a network's keys and shapes. `stem`: "7x7" (stride 2, then max-pool) or "3x3" (stride 1)."""

    arch: str
    width: int
    classes: int
    stem: str = "7x7"

    @property
    def upscale(self) -> int:
        """The stem's geometry: how many times the source image is enlarged for it (section 3.4)."""
        return 4 if self.stem == "7x7" else 1

    def __str__(self) -> str:
        return f"{self.arch} of width {self.width} with {self.classes} classes and a {self.stem} stem"


class SlimResNet(ResNet):
    """torchvision's ResNet with `width` channels in the first stage instead of 64."""

    def __init__(self, block: type, layers: tuple[int, ...], *, width: int, classes: int) -> None:
        nn.Module.__init__(self)
        self._norm_layer = nn.BatchNorm2d
        self.inplanes, self.dilation, self.groups, self.base_width = width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width * block.expansion, classes)
        if block is PlainBlock:
            self.register_buffer(NO_SHORTCUTS, torch.ones(()))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build(architecture: Architecture) -> ResNet:
    """A network with fresh weights from torch's global generator, on the CPU, in channels-last layout."""
    block, layers = BLOCKS[architecture.arch]
    network = SlimResNet(block, layers, width=architecture.width, classes=architecture.classes)
    if architecture.stem == "3x3":
        replace_stem(network)
    return network.to(memory_format=torch.channels_last)


def replace_stem(network: ResNet) -> None:
    """7x7/2 convolution and max-pool -> 3x3/1 convolution with fresh weights and no pooling, in place."""
    old = network.conv1
    network.conv1 = nn.Conv2d(3, old.out_channels, kernel_size=3, stride=1, padding=1, bias=False).to(
        old.weight.device, old.weight.dtype, memory_format=torch.channels_last
    )
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def describe(state: Mapping[str, torch.Tensor]) -> Architecture | None:
    """The architecture whose keys these are, from shapes alone; None if it is none of ours."""
    stem, head = state.get("conv1.weight"), state.get("fc.weight")
    if stem is None or head is None or stem.ndim != 4 or head.ndim != 2 or stem.shape[2] not in (3, 7):
        return None
    if stem.shape[0] == 0 or head.shape[0] == 0:
        return None
    block = Bottleneck if "layer1.0.conv3.weight" in state else PlainBlock if NO_SHORTCUTS in state else BasicBlock
    layers = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")}) for stage in (1, 2, 3, 4)
    )
    for arch, (its_block, its_layers) in BLOCKS.items():
        if its_block is block and its_layers == layers:
            return Architecture(arch, stem.shape[0], head.shape[0], "7x7" if stem.shape[2] == 7 else "3x3")
    return None
