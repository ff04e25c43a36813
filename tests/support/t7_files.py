"""Writes Torch7's binary files as torch7's File.lua does, and fb.resnet.torch's networks in them.

Independent of the reader: it knows the format from the writing side only. Modules are (class, fields) pairs; tensors
are torch's, written as CUDA or CPU ones; those that share memory share a storage in the file.
"""

import struct
from pathlib import Path

import torch
from torch import nn

from fastres.model.freeze import batch_norms
from fastres.model.network import Architecture, build

KINDS = {torch.float32: "Float", torch.float64: "Double", torch.int64: "Long"}


class Raw(bytes):
    """Bytes that stand in the file as they are."""


class Writer:
    def __init__(self, cuda: bool = True) -> None:
        self.out, self.index, self.known, self.cuda = bytearray(), 0, {}, cuda
        self.kept: list = []  # so that no id is given twice

    def put(self, code: str, *values) -> None:
        self.out += struct.pack("<" + code, *values)

    def string(self, text: str) -> None:
        self.put("i", len(text))
        self.out += text.encode("latin-1")

    def seen(self, tag: int, key) -> bool:
        """Tag and index; whether the content has been written before."""
        self.put("i", tag)
        before = self.known.get(key)
        if before is None:
            self.index += 1
            before = self.known[key] = self.index
            self.put("i", before)
            return False
        self.put("i", before)
        return True

    def class_of(self, name: str, version: int = 1) -> None:
        self.string(f"V {version}")
        self.string(name)

    def write(self, value) -> None:
        self.kept.append(value)
        if isinstance(value, Raw):
            self.out += value
        elif value is None:
            self.put("i", 0)
        elif isinstance(value, bool):
            self.put("ii", 5, value)
        elif isinstance(value, (int, float)):
            self.put("id", 1, value)
        elif isinstance(value, str):
            self.put("i", 2)
            self.string(value)
        elif isinstance(value, list):
            self.write({i + 1: item for i, item in enumerate(value)})
        elif isinstance(value, dict):
            if not self.seen(3, id(value)):
                self.put("i", len(value))
                for key, item in value.items():
                    self.write(key)
                    self.write(item)
        elif isinstance(value, tuple):
            name, fields = value
            if not self.seen(4, id(value)):
                self.class_of(name, 2 if "Batch" in name and "running_var" in fields else 1)
                self.write(fields)
        else:
            self.tensor(value)

    def tensor(self, tensor: torch.Tensor) -> None:
        if self.seen(4, id(tensor)):
            return
        kind = "Cuda" if self.cuda and tensor.dtype == torch.float32 else KINDS[tensor.dtype]
        self.class_of(f"torch.{kind}Tensor")
        self.put("i", tensor.ndim)
        self.put(f"{2 * tensor.ndim}q", *tensor.shape, *tensor.stride())
        self.put("q", tensor.storage_offset() + 1)
        whole = tensor.untyped_storage()
        if not self.seen(4, whole.data_ptr()):
            self.class_of(f"torch.{kind}Storage")
            self.put("q", len(whole) // tensor.element_size())
            self.out += torch.empty(0, dtype=torch.uint8).set_(whole).numpy().tobytes()  # bytes(whole) takes seconds


def save(path: Path, value, cuda: bool = True) -> Path:
    writer = Writer(cuda)
    writer.write(value)
    path.write_bytes(writer.out)
    return path


def network(arch: str = "resnet18", width: int = 8, classes: int = 6) -> nn.Module:
    """A net with statistics and weights that are no layer's default."""
    generator = torch.Generator().manual_seed(0)
    net = build(Architecture(arch, width, classes)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for norm in batch_norms(net):
            norm.weight.add_(1)
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=generator))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    return net


def flattened(net: nn.Module) -> dict[str, torch.Tensor]:
    """The state in one storage, as getParameters() of Torch7 leaves a network that was trained."""
    state = {name: value.float().contiguous() for name, value in net.state_dict().items()}
    whole = torch.cat([torch.zeros(3), *(value.reshape(-1) for value in state.values())])
    at = 3
    for name, value in state.items():
        state[name] = whole[at : at + value.numel()].view(value.shape)
        at += value.numel()
    return state


def lua_network(net: nn.Module, library: str = "cudnn") -> tuple:
    """fb.resnet.torch's models/resnet.lua for the same net, shortcut type B."""
    state = flattened(net)

    def unit(conv: str, norm: str) -> list:
        module = net.get_submodule(conv)
        fields = {"nOutputPlane": module.out_channels, "nInputPlane": module.in_channels}
        fields["weight"] = state[f"{conv}.weight"]
        for what, pair in (("k", module.kernel_size), ("d", module.stride), ("pad", module.padding)):
            fields |= {f"{what}H": pair[0], f"{what}W": pair[1]}
        keys = ("weight", "bias", "running_mean", "running_var")
        values = {key: state[f"{norm}.{key}"] for key in keys}
        norm_fields = {"eps": 1e-5, "momentum": 0.1, "affine": True, "train": False, **values}
        return [(f"{library}.SpatialConvolution", fields), ("nn.SpatialBatchNormalization", norm_fields)]

    def sequential(*modules) -> tuple:
        return "nn.Sequential", {"train": False, "modules": list(modules)}

    def block(name: str) -> tuple:
        module, way = net.get_submodule(name), []
        for i in range(1, 4 if hasattr(module, "conv3") else 3):
            way += unit(f"{name}.conv{i}", f"{name}.bn{i}") + [relu()]
        shortcut = ("nn.Identity", {})
        if module.downsample is not None:
            shortcut = sequential(*unit(f"{name}.downsample.0", f"{name}.downsample.1"))
        both = ("nn.ConcatTable", {"modules": [sequential(*way[:-1]), shortcut]})
        return sequential(both, ("nn.CAddTable", {"inplace": True}), relu())

    def relu() -> tuple:
        return f"{library}.ReLU", {"inplace": True}

    blocks = [[f"layer{i}.{j}" for j in range(len(net.get_submodule(f"layer{i}")))] for i in range(1, 5)]
    layers = [sequential(*map(block, names)) for names in blocks]
    pool = ("nn.SpatialMaxPooling", {"kW": 3, "kH": 3, "dW": 2, "dH": 2, "padW": 1, "padH": 1, "ceil_mode": False})
    end = [
        (f"{library}.SpatialAveragePooling", {"kW": 7, "kH": 7, "dW": 1, "dH": 1}),
        ("nn.View", {"size": torch.tensor([net.fc.in_features]), "numInputDims": 3}),
        ("nn.Linear", {"weight": state["fc.weight"], "bias": state["fc.bias"]}),
    ]
    return sequential(*unit("conv1", "bn1"), relu(), pool, *layers, *end)
