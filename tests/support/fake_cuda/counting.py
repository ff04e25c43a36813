"""What every operation on fake tensors would do to a GPU: launches, the host's waits for it, the memory it holds."""

import collections
import contextlib
import functools
import math
import traceback
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.support.fake_cuda.backward import same_strides

CUDA = torch.device("cuda", 0)
FASTRES = str(Path(__file__).parents[3] / "fastres") + "/"

# of no kernel: views, shapes, memory without content
NO_KERNEL = {
    "_local_scalar_dense", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "detach_", "diagonal",
    "empty", "empty_like", "empty_strided", "expand", "item", "lift", "lift_fresh", "new_empty", "new_empty_strided",
    "permute", "resize_", "select", "set_", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose",
    "unbind", "unfold", "unsqueeze", "view",
}  # fmt: skip
READS = ("_local_scalar_dense", "equal", "is_nonzero", "item")  # one value back to the host
SIZES = ("_unique2", "masked_select", "nonzero", "repeat_interleave", "unique")  # the size of their result


def _chunked(tensors: list, depth: int) -> int:
    """Launches of torch's multi_tensor_apply over lists of `depth` tensors: chunks of 65,536 elements, at most 320 of
    them and (110, 64, 48, 36, 30)[depth - 1] tensors each."""
    most, launches, blocks, held = (110, 64, 48, 36, 30)[depth - 1], 0, 0, 0
    for tensor in tensors:
        held += 1
        for _ in range(max(1, math.ceil(tensor.numel() / 65536))):
            blocks += 1
            if blocks == 320:
                launches, blocks, held = launches + 1, 0, 1
        if held == most:
            launches, blocks, held = launches + 1, 0, 0
    return launches + (blocks > 0)


# launches of one operation, where they are not 1; of its positional arguments
LAUNCHES = {
    "convolution": lambda a: 1 + (a[2] is not None),
    "convolution_backward": lambda a: a[10][0] + 2 * a[10][1] + a[10][2],
    "native_batch_norm": lambda a: 3 if a[5] else 1,
    "native_batch_norm_backward": lambda a: 3,
    "max_pool2d_with_indices_backward": lambda a: 2,
    "nll_loss_backward": lambda a: 2,
    "_foreach_add_": lambda a: _chunked(a[0], 1),
    "_foreach_copy_": lambda a: _chunked(a[0], 2),
    "_foreach_lerp_": lambda a: _chunked(a[0], 2),
    "_fused_sgd_": lambda a: _chunked(a[0], 4),
}


def place() -> str:
    """file:function of the innermost code of this project, as `stage/step.py:mean_loss`."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename.startswith(FASTRES)]
    return f"{frames[-1].filename.removeprefix(FASTRES)}:{frames[-1].name}" if frames else "outside"


class Count(TorchDispatchMode):
    """Sees every operation of a FakeTensorMode below it.

    launches  operation -> kernels
    entered   phase -> how often
    syncs     (phase, what, file:function) -> how often the host would have to wait for the GPU
    copies    the same for copies between the two that nobody waits for
    held      bytes of live cuda storages, and `peak` the most so far
    """

    def __init__(self) -> None:
        super().__init__()
        self.held, self.pinned, self._known = 0, weakref.WeakSet(), weakref.WeakSet()
        self._phases = ["outside"]
        self.reset()

    def reset(self) -> None:
        """Forget what was counted; what is held stays."""
        self.launches, self.entered, self.syncs, self.copies = (collections.Counter() for _ in range(4))
        self.peak = self.held

    def noted(self) -> dict[str, list]:
        """[[phase, what, file:function, times]] of the waits, and of the copies without one."""
        return {name: [[*key, n] for key, n in sorted(getattr(self, name).items())] for name in ("syncs", "copies")}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside, and in no phase inside of it, is counted as `name`'s."""
        self._phases.append(name)
        self.entered[name] += 1
        try:
            yield
        finally:
            self._phases.pop()

    @property
    def now(self) -> str:
        return self._phases[-1]

    def during(self, name: str, function: Callable) -> Callable:
        """`function`, every call of which is the phase `name`."""

        @functools.wraps(function)
        def called(*args, **kwargs):
            with self.phase(name):
                return function(*args, **kwargs)

        return called

    def note(self, what: str) -> None:
        """The host waits for the GPU."""
        self.syncs[self.now, what, place()] += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        room, name = func._schema.name.split("::")
        if room == "prim":  # questions about a tensor
            return func(*args, **kwargs)
        before = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_gpu = any(tensor.is_cuda for tensor in before)
        self._look_for_waits(name, args, on_gpu)
        if name in READS:
            return _some_value(torch.bool if name == "equal" else before[0].dtype)
        pinned = kwargs.pop("pin_memory", None)
        if name == "_fused_sgd_":
            out = _check_sgd(args, kwargs)
        elif on_gpu and name in ("convolution", "convolution_backward"):
            out = _as_cudnn(func, args)
        else:
            out = func(*args, **kwargs)
        after = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        for tensor in after:
            self._hold(tensor)
            if pinned and not tensor.is_cuda:
                self.pinned.add(tensor.untyped_storage())
        if name in ("_to_copy", "copy_") and self._copied(name, args, kwargs, before, after):
            return out
        if (on_gpu or any(tensor.is_cuda for tensor in after)) and name not in NO_KERNEL:
            self.launches[name] += LAUNCHES.get(name, lambda _: 1)(args)
        return out

    def _look_for_waits(self, name: str, args: tuple, on_gpu: bool) -> None:
        if on_gpu and name in READS:
            self.note("read a value")
        if on_gpu and name in SIZES:
            self.note(f"size of {name}")
        if on_gpu and name == "index" and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            self.note("boolean index")

    def _copied(self, name: str, args: tuple, kwargs: dict, before: list, after: list) -> bool:
        """Whether this is a copy between host and GPU, which is noted: it waits unless it is asked not to and the
        host's side is pinned."""
        source, target = (before[1], before[0]) if name == "copy_" else (before[0], after[0])
        if source.is_cuda == target.is_cuda:
            return False
        asked = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
        host = source if target.is_cuda else target
        waits = not (asked and host.untyped_storage() in self.pinned)
        way = "upload" if target.is_cuda else "download"
        self.launches["memcpy"] += 1
        if waits:
            self.note(f"blocking {way}")
        else:
            self.copies[self.now, way, place()] += 1
        return True

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.is_cuda and storage not in self._known:
            self._known.add(storage)
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._let_go, storage.nbytes())

    def _let_go(self, size: int) -> None:
        self.held -= size


def _some_value(dtype: torch.dtype) -> bool | int | float:
    return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1


def _as_cudnn(convolution: Callable, args: tuple):
    """All images and filters must be channels-last. cuDNN's results of them are, the fake ones' are not."""
    for tensor in (arg for arg in args[:3] if isinstance(arg, torch.Tensor) and arg.ndim == 4):
        assert tensor.is_contiguous(memory_format=torch.channels_last), (
            f"{place()}: {tensor.stride()}, not channels-last"
        )

    def laid_out(tensor: torch.Tensor | None) -> torch.Tensor | None:
        four = tensor is not None and tensor.ndim == 4
        return torch.empty_like(tensor, memory_format=torch.channels_last) if four else tensor

    return tree_map(laid_out, convolution(*args))


def _check_sgd(args: tuple, kwargs: dict) -> None:
    """_fused_sgd_ has no fake form; what the real one would refuse or go wrong with is refused here."""
    parameters, grads, momenta = args[:3]
    for parameter, *others in zip(parameters, grads, momenta or parameters, strict=True):
        for tensor in others:
            assert tensor.device == parameter.device == CUDA and tensor.dtype == parameter.dtype == torch.float32
            assert same_strides(parameter, tensor), (parameter.shape, parameter.stride(), tensor.stride())
    for flag in ("grad_scale", "found_inf"):
        tensor = kwargs.get(flag)
        assert tensor is None or (tensor.device == CUDA and tensor.dtype == torch.float32 and tensor.numel() == 1), flag
