"""fb.resnet.torch's networks, the paper's own, as torchvision's keys.

Both are the same function: fb.resnet.torch strides the 3x3 convolution of a bottleneck as torchvision does, reads
images as RGB in 0..1, and normalises by the same means and deviations (its datasets/imagenet.lua), so nothing is
reordered or rescaled. Its convolutions may have a bias, which torchvision's lack: the norm behind takes it over,
norm(conv(x) + b) = norm with mean m - b. Shortcut type B (1x1 convolution where the width changes) is what torchvision
has; A (padding) and C (a convolution everywhere) are refused, and so is its published ResNet-50, whose norm stands
behind the addition.
"""

from pathlib import Path

import torch
from torch import nn

from fastres.machine.errors import DataError
from fastres.model.network import build, describe
from fastres.model.t7 import Module, read_t7

EPS = 1e-5  # of every norm, there and in torchvision
POOL = {"kW": 3, "kH": 3, "dW": 2, "dH": 2, "padW": 1, "padH": 1}
PLAIN = ["ReLU", "SpatialMaxPooling", "SpatialAveragePooling", "View"]  # around the four layers
CONVOLUTIONS = ("SpatialConvolution", "SpatialConvolutionMM")


def state_from_t7(path: Path) -> dict[str, torch.Tensor]:
    """A state dict with torchvision's keys, f32, from a .t7 file. DataError if it holds anything but such a network."""
    mapping = _Mapping(path)
    mapping.network(read_t7(path))
    return mapping.state


class _Mapping:
    """Walks a stored network in its order and collects `state`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, torch.Tensor] = {}
        self.windows: dict[str, tuple] = {}  # by convolution: kernel, stride, padding, each (height, width)

    def network(self, root: object) -> None:
        parts = self.children(root, "Sequential", "the network")
        kinds = [part.kind for part in parts]
        if len(kinds) != 11 or [*kinds[2:4], *kinds[8:10]] != PLAIN:
            raise self.fault(f"a network of {', '.join(kinds)[:120]}", "stem, four layers, pooling and Linear")
        self.convolution("conv1", "bn1", parts[0], parts[1])
        self.maxpool(parts[3])
        for layer, part in enumerate(parts[4:8], start=1):
            for index, block in enumerate(self.children(part, "Sequential", f"layer{layer}")):
                self.block(f"layer{layer}.{index}", block, first=index == 0)
        self.linear(parts[10])
        self.check_windows()

    def block(self, name: str, block: Module, first: bool) -> None:
        parts = self.children(block, "Sequential", name)
        kinds = [part.kind for part in parts]
        if kinds != ["ConcatTable", "CAddTable", "ReLU"]:
            hint = " (the published ResNet-50 is such a one)" if "SpatialBatchNormalization" in kinds else ""
            raise self.fault(f"{', '.join(kinds)} in {name}{hint}", "ConcatTable, CAddTable, ReLU")
        ways = self.children(parts[0], "ConcatTable", name)
        if len(ways) != 2:
            raise self.fault(f"{len(ways)} ways through {name}", "a residual one and a shortcut")
        units = [m for m in self.children(ways[0], "Sequential", name) if m.kind != "ReLU"]
        if len(units) not in (4, 6):
            raise self.fault(f"{len(units)} convolutions and norms in {name}", "2 or 3 of each")
        for i in range(len(units) // 2):
            self.convolution(f"{name}.conv{i + 1}", f"{name}.bn{i + 1}", units[2 * i], units[2 * i + 1])
        if ways[1].kind == "Identity":
            return
        shortcut = self.children(ways[1], "Sequential", f"{name}'s shortcut")
        if [m.kind for m in shortcut] == ["SpatialAveragePooling", "Concat"]:
            raise self.fault(f"a shortcut of type A (padding) in {name}", "type B, which torchvision has")
        if not first:
            raise self.fault(f"a shortcut of type C (convolution) in {name}", "type B, which torchvision has")
        if len(shortcut) != 2:
            raise self.fault(f"a shortcut of {len(shortcut)} modules in {name}", "a convolution and a norm")
        self.convolution(f"{name}.downsample.0", f"{name}.downsample.1", *shortcut)

    def convolution(self, name: str, norm_name: str, conv: Module, norm: Module) -> None:
        """A convolution and the norm behind it, which takes over the convolution's bias."""
        if conv.kind not in CONVOLUTIONS or norm.kind != "SpatialBatchNormalization":
            raise self.fault(f"{conv.kind} and {norm.kind} at {name}", "a convolution and a norm")
        kernel, stride, padding = (
            tuple(self.whole(conv, f"{what}{side}", name) for side in "HW") for what in ("k", "d", "pad")
        )
        outputs, inputs = (self.whole(conv, key, name) for key in ("nOutputPlane", "nInputPlane"))
        if conv.fields.get("groups") not in (None, 1):
            raise self.fault(f"{conv.fields['groups']:g} groups at {name}", "one")
        self.windows[name] = kernel, stride, padding
        # a matrix in SpatialConvolutionMM and in files of old versions
        self.state[f"{name}.weight"] = self.values(conv, "weight", name, (outputs, inputs, *kernel))
        if abs(norm.fields.get("eps", 0) - EPS) > 1e-9:
            raise self.fault(f"eps {norm.fields.get('eps')} at {norm_name}", f"{EPS}")
        for key in ("weight", "bias", "running_mean"):
            self.state[f"{norm_name}.{key}"] = self.values(norm, key, norm_name, (outputs,))
        self.state[f"{norm_name}.running_var"] = self.variance(norm, norm_name, outputs)
        if isinstance(conv.fields.get("bias"), torch.Tensor) and conv.fields["bias"].numel():
            self.state[f"{norm_name}.running_mean"] -= self.values(conv, "bias", name, (outputs,))

    def variance(self, norm: Module, name: str, count: int) -> torch.Tensor:
        """Norms of version 1 kept 1 / sqrt(variance + eps) and called it running_std."""
        if "running_var" not in norm.fields and norm.version < 2:
            return self.values(norm, "running_std", name, (count,)).double().pow(-2).sub(EPS).float()
        return self.values(norm, "running_var", name, (count,))

    def maxpool(self, pool: Module) -> None:
        found = {key: pool.fields.get(key) for key in POOL}
        if found != POOL or pool.fields.get("ceil_mode"):
            raise self.fault(f"max-pooling of {found}", f"{POOL}")

    def linear(self, module: Module) -> None:
        weight = module.fields.get("weight")
        if module.kind != "Linear" or not isinstance(weight, torch.Tensor) or weight.ndim != 2:
            raise self.fault(f"{module.kind} at the end", "a Linear with its weight")
        self.state["fc.weight"] = self.values(module, "weight", "fc", tuple(weight.shape))
        self.state["fc.bias"] = self.values(module, "bias", "fc", (weight.shape[0],))

    def check_windows(self) -> None:
        """Keys and shapes say nothing of strides: they must be those of torchvision's network."""
        architecture = describe(self.state)
        if architecture is None:
            raise self.fault("layers of other lengths", "those of a ResNet-18, 34, 50, 101 or 152")
        with torch.device("meta"):
            network = build(architecture)
        for name, window in self.windows.items():
            try:
                conv: nn.Conv2d = network.get_submodule(name)
            except AttributeError:
                raise self.fault(f"a shortcut of type C (convolution) at {name}", "type B") from None
            theirs = (conv.kernel_size, conv.stride, conv.padding)
            if window != theirs:
                raise self.fault(f"kernel, stride and padding {window} at {name}", f"{theirs}")

    def children(self, module: object, kind: str, where: str) -> list[Module]:
        """The modules inside a container, in order."""
        found = module.kind if isinstance(module, Module) else type(module).__name__
        table = module.fields.get("modules") if isinstance(module, Module) else None
        if found != kind or not isinstance(table, dict):
            raise self.fault(f"{found} for {where}", f"a {kind}")
        children = [table.get(float(i + 1)) for i in range(len(table))]
        if not all(isinstance(child, Module) for child in children):
            raise self.fault(f"something else than modules in {where}", "modules")
        return children

    def values(self, module: Module, key: str, where: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A field as f32 of `shape`, memory of its own."""
        tensor = module.fields.get(key)
        count = torch.Size(shape).numel()
        if not isinstance(tensor, torch.Tensor) or tensor.numel() != count:
            found = f"{key} of size {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else f"no {key}"
            raise self.fault(f"{found} at {where}", f"size {shape}")
        return tensor.float().reshape(shape).clone()

    def whole(self, module: Module, key: str, where: str) -> int:
        """A field that must be a whole number; padding may be absent, which is 0."""
        value = module.fields.get(key, 0.0 if key.startswith("pad") else None)
        if not isinstance(value, float) or not value.is_integer() or not 0 <= value < 1 << 20:
            raise self.fault(f"{key} {value!r} at {where}", "a whole number")
        return int(value)

    def fault(self, found: str, expected: str) -> DataError:
        return DataError(
            f"weights {self.path}: found {found}, expected {expected}: a ResNet of fb.resnet.torch with shortcuts of "
            "type B; use another of its files, or torchvision's weights"
        )
