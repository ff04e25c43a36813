"""The context in which `cuda` tensors are fake, and what stands in for torch's and Triton's parts that need a GPU."""

import contextlib
import inspect
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
import torch.cuda.amp.common
from torch._subclasses.fake_tensor import FakeTensorMode

from fastres.views import triton_decide, triton_kernels
from tests.support.fake_cuda.backward import backward, keeping
from tests.support.fake_cuda.counting import CUDA, Count

GPU = "a GPU whose peak nobody knows"  # so that no FLOP are counted, on the host, for seconds
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
# dtypes of the views kernel's tensors by their names; a test view's chance is any small tensor, unread
DTYPES = {
    "images": (torch.uint8,),
    "rows": (torch.int64,),
    "ids": (torch.int64,),
    "out": FLOATS,
    "first": (torch.int32,),
    "weight": (torch.float32,),
    "begin": (torch.int32,),
    "constants": (torch.float64,),
}
OF_TRAINING = {
    "key": (torch.int64,),
    "widths": (torch.float64,),
    "shares": (torch.float32, torch.float64),
    "orders": (torch.int32,),
}
OF_TEST = {"views": (torch.int32,), "affine": (torch.float32,)}


class ViewsKernel:
    """Stands for Triton's kernel: checks what one launch would read and write."""

    def __init__(self, count: Count, kernel) -> None:
        self.count, self.signature = count, inspect.signature(kernel.fn)

    def __getitem__(self, grid: tuple[int, int]):
        def launch(*args, num_warps: int, enable_fp_fusion: bool, **constants) -> None:
            given = self.signature.bind(*args, **constants).arguments
            dtypes = DTYPES | (OF_TRAINING if given["TRAIN"] else OF_TEST)
            for name, value in given.items():
                if isinstance(value, torch.Tensor):
                    assert value.device == CUDA and value.is_contiguous(), (name, value.device, value.stride())
                    assert value.dtype in dtypes.get(name, (value.dtype,)), (name, value.dtype)
            images, rows, ids, out = (given[name] for name in ("images", "rows", "ids", "out"))
            assert given["known"] == len(images) and rows.shape == ids.shape and len(out) == len(rows) * given["VIEWS"]
            assert images.shape[1:] == (given["SIDE"], given["SIDE"], 3)
            assert out.shape[1:] == (given["CROP"], given["CROP"], given["CHANNELS"])
            assert grid[0] == len(out) and (grid[1] - 1) * given["ROWS"] < given["CROP"] <= grid[1] * given["ROWS"]
            self.count.launches["views_kernel"] += 1

        return launch


class OtherKernel:
    """Stands for a kernel of the views beside it: what it reads and writes is on the GPU, contiguous."""

    def __init__(self, count: Count, kernel) -> None:
        self.count, self.name = count, kernel.__name__

    def __getitem__(self, grid: tuple):
        def launch(*args, **constants) -> None:
            for value in args:
                assert not isinstance(value, torch.Tensor) or (value.device == CUDA and value.is_contiguous())
            self.count.launches[self.name] += 1

        return launch


def _apply(module: torch.nn.Module, fn, recurse: bool = True) -> torch.nn.Module:
    """Module._apply swaps parameters in place, which fake tensors do not allow."""
    for child in module.children():
        child._apply(fn)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = fn(parameter.detach())
            module._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        module._buffers[name] = None if buffer is None else fn(buffer)
    return module


def _deepcopy(tensor: torch.Tensor, memo: dict) -> torch.Tensor:
    """Tensor.__deepcopy__ asks for the address of the data, which ends the process now and then."""
    if id(tensor) not in memo:
        with torch.no_grad():
            twin = tensor.detach().clone()
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
    return memo[id(tensor)]


class Stream:
    """A stream that notes who waits for it."""

    def __init__(self, count: Count) -> None:
        self.count = count

    def wait_stream(self, other: "Stream") -> None: ...

    def synchronize(self) -> None:
        self.count.note("synchronise")


@contextlib.contextmanager
def fake_cuda() -> Iterator[Count]:
    """Tensors made inside are fake, on `cuda` or the CPU; what is counted is in the Count it gives."""
    count = Count()
    stream = Stream(count)

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned = tensor.clone()
        count.pinned.add(pinned.untyped_storage())
        return pinned

    def values(tensor: torch.Tensor) -> np.ndarray:
        assert not tensor.is_cuda, "numpy() of a tensor on the GPU"
        return np.ones(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))

    stand_ins = {
        # autocast switches itself off where there is no GPU; torch.cuda.is_available would change too much
        "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
        "torch.cuda.is_bf16_supported": lambda including_emulation=True: True,
        "torch.cuda.is_current_stream_capturing": lambda: False,
        "torch.cuda.get_device_name": lambda *_: GPU,
        "torch.cuda.max_memory_allocated": lambda *_: count.peak,
        "torch.cuda.current_stream": lambda *_: stream,
        "torch.cuda.synchronize": lambda *_: stream.synchronize(),
        "torch.cuda.empty_cache": lambda: None,
        "torch.cuda.mem_get_info": lambda *_: (80 * 10**9, 80 * 10**9),
        "torch.Tensor.backward": lambda loss: backward(loss),
        "torch.Tensor.pin_memory": pin,
        "torch._subclasses.fake_tensor.FakeTensor.numpy": values,
        "torch._subclasses.fake_tensor.FakeTensor.__deepcopy__": _deepcopy,
        "torch.nn.Module._apply": _apply,
        "fastres.views.triton_kernels.views_kernel": ViewsKernel(count, triton_kernels.views_kernel),
        "fastres.views.triton_decide.decide_kernel": OtherKernel(count, triton_decide.decide_kernel),
        "fastres.views.triton_decide.mix_kernel": OtherKernel(count, triton_decide.mix_kernel),
    }
    with contextlib.ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch(name, stand_in, create="FakeTensor" in name))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(keeping())
        yield stack.enter_context(count)
