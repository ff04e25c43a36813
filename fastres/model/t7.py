"""Torch7's binary files (.t7), read without executing anything.

The format is a tree of tagged objects (torch7's File.lua and generic/Tensor.c, Storage.c describe it by writing it):
i32 tag, then by tag nothing (nil), f64 (number), i32 length and bytes (string), i32 (boolean), or an i32 index and, the
first time that index appears, the content: tables are i32 count and that many key-value pairs; torch objects are two
strings (version "V 1", class name) and what their class writes. All little-endian, long is 64 bits.

Only tensors, storages and the modules of MODULES are read. A function is bytecode, so a file that holds one is refused.
"""

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastres.machine.errors import DataError
from fastres.machine.files import read_regular

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN = range(6)
FUNCTIONS = (6, 7, 8)
DEEPEST = 64  # nested objects; a residual net has some 20

DTYPES = {
    "Byte": "u1", "Char": "i1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Half": "<f2", "Float": "<f4",
    "Double": "<f8", "Cuda": "<f4", "CudaHalf": "<f2", "CudaDouble": "<f8", "CudaLong": "<i8", "CudaByte": "u1",
}  # fmt: skip
STORAGES = {f"torch.{kind}Storage": np.dtype(code) for kind, code in DTYPES.items()}
TENSORS = {f"torch.{kind}Tensor": np.dtype(code) for kind, code in DTYPES.items()}
# what fb.resnet.torch's networks are made of, under either of its libraries' names
MODULES = {
    f"{library}.{name}"
    for library in ("nn", "cudnn")
    for name in ("Sequential", "ConcatTable", "CAddTable", "Identity", "SpatialConvolution", "SpatialConvolutionMM",
                 "SpatialBatchNormalization", "ReLU", "SpatialMaxPooling", "SpatialAveragePooling", "View", "Linear",
                 "Concat", "MulConstant")
}  # fmt: skip


@dataclass
class Module:
    """A module as it was stored: its class without the library's prefix, its class's version, its fields."""

    kind: str
    version: float
    fields: dict = field(default_factory=dict)


def read_t7(path: Path) -> Any:
    """The object a .t7 file holds: numbers f64, strings, booleans, None, tables as dicts, tensors, Modules.

    Tensors that shared a storage share memory. DataError for damage, functions, and classes that are not allowed.
    """
    try:
        data = memoryview(read_regular(path))
    except OSError as error:
        raise DataError(f"weights {path}: not readable ({error.strerror}); get the file again") from error
    return _Reader(data, path).read()


class _Reader:
    def __init__(self, data: memoryview, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0
        self.known: dict[int, Any] = {}

    def read(self, depth: int = 0) -> Any:
        """The next object."""
        if depth > DEEPEST:
            raise self.fault(f"more than {DEEPEST} objects inside each other")
        tag = self.number("<i")
        if tag == NIL:
            return None
        if tag == NUMBER:
            return self.number("<d")
        if tag == BOOLEAN:
            return self.number("<i") == 1
        if tag == STRING:
            return self.text()
        if tag in FUNCTIONS:
            raise self.fault("a Lua function, which is code and is not run; save the network alone")
        if tag not in (TABLE, OBJECT):
            raise self.fault(f"tag {tag} at byte {self.at - 4}, where 0 to 5 may stand; is it a binary .t7 file?")
        index = self.number("<i")
        if index not in self.known:
            self.table(index, {}, depth) if tag == TABLE else self.object(index, depth)
        return self.known[index]

    def table(self, index: int, table: dict, depth: int) -> None:
        self.known[index] = table
        for _ in range(self.number("<i")):
            key, value = self.read(depth + 1), self.read(depth + 1)
            if not isinstance(key, (str, float, bool)):
                raise self.fault(f"a table with a key of type {type(key).__name__}")
            table[key] = value

    def object(self, index: int, depth: int) -> None:
        version, name = self.text(), ""
        if version.startswith("V "):
            name = self.text()
        else:  # from before classes had versions
            version, name = "V 0", version
        if name in STORAGES:
            content = self.take(self.number("<q"), STORAGES[name].itemsize)
            self.known[index] = np.frombuffer(content, STORAGES[name]).copy()  # torch wants memory it may write to
        elif name in TENSORS:
            self.known[index] = self.tensor(TENSORS[name], depth)
        elif name in MODULES:
            try:
                module = Module(name.partition(".")[2], float(version[2:]))
            except ValueError:
                raise self.fault(f"version {version!r} of {name}") from None
            self.known[index] = module
            module.fields = self.read(depth + 1)
            if not isinstance(module.fields, dict):
                raise self.fault(f"a {name} without fields")
        else:
            raise self.fault(f"class {name[:60]!r}, which no network of fb.resnet.torch has")

    def tensor(self, dtype: np.dtype, depth: int) -> torch.Tensor:
        """Sizes, strides, the first element's place counted from 1, and the storage."""
        count = self.number("<i")
        sizes, strides = (np.frombuffer(self.take(count, 8), "<i8").tolist() for _ in range(2))
        first, storage = self.number("<q") - 1, self.read(depth + 1)
        if not sizes or 0 in sizes or storage is None:
            return torch.empty(0)
        if not isinstance(storage, np.ndarray) or storage.dtype != dtype:
            raise self.fault(f"a tensor whose storage is {getattr(storage, 'dtype', type(storage).__name__)}")
        last = first + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        numbers = (*sizes, *strides, first)
        if count > 8 or min(numbers) < 0 or last >= len(storage) or math.prod(sizes) > len(storage):
            raise self.fault(f"a tensor of size {sizes[:8]} that does not fit its storage of {len(storage)} elements")
        return torch.from_numpy(storage).as_strided(sizes, strides, first)

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code), 1))[0]

    def text(self) -> str:
        return str(self.take(self.number("<i"), 1), "latin-1")

    def take(self, count: int, size: int) -> memoryview:
        """The next `count` elements of `size` bytes."""
        end = self.at + count * size
        if count < 0 or end > len(self.data):
            raise self.fault(f"{count} elements of {size} bytes at byte {self.at}, beyond its {len(self.data)} bytes")
        taken, self.at = self.data[self.at : end], end
        return taken

    def fault(self, found: str) -> DataError:
        return DataError(
            f"weights {self.path}: found {found}, expected a network of fb.resnet.torch saved by Torch7; get the file "
            "again, or convert it to .safetensors where you trust it"
        )
