"""A state dict out of a file, however its program stored it: ours, torchvision's, Lightning's, timm's, compiled, DDP's.

Two things differ: the dict that holds the tensors may lie inside others (CONTAINERS, or the only one with a network),
and all names may have prefixes in front (`module.`, `_orig_mod.`, `model.`, `backbone.`, in any nesting). Both are
found from the network's own names. No stored code is ever run.
"""

import argparse
import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from fastres.machine.console import say_once
from fastres.machine.errors import DataError, MachineError
from fastres.machine.files import read_regular
from fastres.model.fb_resnet import state_from_t7

OURS = "network"  # where our checkpoints have their weights
# Where others have them, the likeliest first. An average of the weights is taken only where there is nothing else:
# what a file's other entries say (its epoch, its error) is mostly said of the weights themselves.
CONTAINERS = (OURS, "state_dict", "model", "model_state_dict", "net", "state_dict_ema", "model_ema")
STEM, FIRST_BLOCK = "conv1.weight", "layer1.0.conv1.weight"
COUNTER = "num_batches_tracked"  # the only integers of a network
EPS = 1e-5  # what every BatchNorm adds to its variance before the root
SHOWN = 3
DEEPEST = 4  # dicts inside each other; a pickled dict may hold itself


def read_weights(path: Path | str) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, a .pth/.pt written by torch.save, or fb.resnet.torch's .t7; tensors on the CPU.

    `FILE::KEY` names the dict inside the file, or the prefix of the names, where there are several networks.
    MachineError if there is no such file, DataError if it is damaged, carries anything but plain values, or has tensors
    that are no weights: see check_values.
    """
    path, key = split_key(path)
    return state_in(read_stored(path), path, key)


def split_key(text: Path | str) -> tuple[Path, str | None]:
    """`FILE::KEY` as its parts; a file of that very name comes first."""
    file, found, key = str(text).rpartition("::")
    if not found or not key or Path(text).exists():
        return Path(text), None
    return Path(file), key


def read_stored(path: Path) -> Any:
    """All that a file holds: tensors by name, or what torch.save was given. Errors: see read_weights."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no regular file" if path.exists() else "no such file"
        raise MachineError(f"weights {path}: {what}; fetch it, or pass a FILE that is there (.safetensors, .pth, .t7)")
    if path.suffix == ".t7":
        return state_from_t7(path)
    try:
        if path.suffix == ".safetensors":
            return load(read_regular(path))  # not mapped: a mapped file that is cut later ends the process
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of TorchScript's archives, which are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = _foreign(path) or _in_our_words(str(error) or type(error).__name__)
        raise DataError(f"weights {path}: not readable ({reason}); get the file again") from error
    except MemoryError:
        raise
    except Exception as error:  # weights_only raises pickle.UnpicklingError on code, and others on damage
        if foreign := _foreign(path):
            raise DataError(f"weights {path}: not readable ({foreign}); get the file again") from error
        raise DataError(
            f"weights {path}: holds more than tensors or is damaged, so it was not loaded ({type(error).__name__}); "
            "save its state_dict alone, best as .safetensors"
        ) from error


FOREIGN = (  # how files begin that often come in the place of weights
    (b"version https://git-lfs", "it is Git LFS's pointer to a file: git lfs pull"),
    (b"<", "it is a web page"),
    (b"\x08", "it is an ONNX network, or damaged"),
)


def _foreign(path: Path) -> str | None:
    """What a file that cannot be read as weights seems to be, by its first bytes."""
    with contextlib.suppress(OSError):
        head = read_regular(path, 64).lstrip()
        return next((words for begin, words in FOREIGN if head.startswith(begin)), None)
    return None


def _in_our_words(said: str) -> str:
    """The first line of an error of torch's, but for those that advise to load what runs code."""
    if "TorchScript" in said:
        return "it is a TorchScript archive: save its state_dict"
    return "it is damaged, or torch.save did not make it" if "weights_only" in said else said.splitlines()[0]


def state_in(stored: Any, source: object, key: str | None = None) -> dict[str, torch.Tensor]:
    """The network's tensors under torchvision's names, checked. Says what was taken where there was a choice."""
    names = _tensors(stored)
    if names is None:
        raise DataError(f"weights {source}: found no state dict, expected parameter names with tensors")
    if key is not None:
        names = _chosen(stored, key, source)
    else:
        names = _contained(stored, source)
    state = _without_prefix(names, source, key)
    check_values(state, source)
    return state


def check_values(state: Mapping[str, torch.Tensor], source: object) -> None:
    """DataError that names the first tensor which cannot be a network's: of integers or another form than plain
    memory, with values that are not finite, or a variance that has no root."""
    for name, value in state.items():
        if not _is_plain(value) or not (value.is_floating_point() or name.endswith(COUNTER)):
            kind = f"{str(value.dtype).removeprefix('torch.')}, {str(value.layout).removeprefix('torch.')}"
            raise DataError(
                f"weights {source}: {name} is {kind}, expected plain floating-point numbers; save it as float32"
            )
        wide = value.float()  # what a network computes in: a float64 of 1e300 is infinite there
        bad = int((~torch.isfinite(wide)).sum())
        if bad:
            raise DataError(
                f"weights {source}: {bad} value{'s' * (bad > 1)} of {name} {'are' if bad > 1 else 'is'} not finite; "
                "use the file of an earlier epoch, or get it again"
            )
        if name.endswith("running_var") and bool((wide <= -EPS).any()):
            raise DataError(f"weights {source}: {name} has values below 0, which no variance is; get the file again")


def _is_plain(value: torch.Tensor) -> bool:
    """Whether each of its numbers has a place in memory of its own, and they are no pairs or truths."""
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
        return False
    if value.is_complex() or value.dtype == torch.bool:
        return False
    return value.numel() * value.itemsize <= value.untyped_storage().nbytes()


def _tensors(stored: Any) -> dict | None:
    """`stored` where it is a dict with text keys, at least one of them."""
    return stored if isinstance(stored, dict) and stored and all(isinstance(key, str) for key in stored) else None


def _has_network(names: dict) -> bool:
    return any(key == STEM or key.endswith(f".{STEM}") for key, value in names.items() if torch.is_tensor(value))


def _contained(stored: dict, source: object) -> dict:
    """The dict with the network's names: `stored` itself or one of those in it, in turn inside each other.

    Of CONTAINERS the likeliest is taken, an entry of another name only where no other holds a network: else DataError.
    """
    way: list[str] = []
    while not _has_network(stored) and len(way) < DEEPEST:
        held = [key for key in stored if _network_below(stored[key])]
        held = [key for key in CONTAINERS if key in held] or held
        if not held:  # what lacks a layer is named by what it lacks
            held = [key for key in CONTAINERS if _tensors(stored.get(key))][:1]
        choices = [f"{source}::{'.'.join([*way, key])}" for key in held]
        if not held:
            return stored
        if len(held) > 1 and held[0] not in CONTAINERS:
            shown = ", ".join(held[:SHOWN]) + (", ..." if len(held) > SHOWN else "")
            raise DataError(f"weights {source}: holds networks under {shown}; choose {' or '.join(choices[:SHOWN])}")
        way.append(held[0])
        if len(held) > 1:
            here = ".".join(way)
            say_once(f"weights {source}: took {here}, not {', '.join(held[1:])}; to choose: {', '.join(choices[1:])}")
        elif held[0] != OURS:
            say_once(f"weights {source}: took {'.'.join(way)}")
        stored = stored[held[0]]
    return stored


def _network_below(stored: Any, depth: int = DEEPEST) -> bool:
    names = _tensors(stored)
    if names is None or depth == 0:
        return False
    return _has_network(names) or any(_network_below(inner, depth - 1) for inner in names.values())


def _chosen(stored: dict, key: str, source: object) -> dict:
    """What `FILE::KEY` means: a dict by its key, or by keys with dots; else all names that begin with it."""
    node: Any = stored
    for word in [key] if key in stored else key.split("."):
        node = node.get(word) if isinstance(node, dict) else None
    if (found := _tensors(node)) is not None:
        return found
    names = _contained(stored, source)
    begun = {name: value for name, value in names.items() if name.startswith(f"{key}.")}
    if not begun:
        known = [name for name, value in stored.items() if isinstance(value, dict)] or list(_prefixes(names))
        raise DataError(
            f"weights {source}: has nothing under {key!r}, expected {' or '.join(known) or 'several networks there'}"
        )
    return begun


def _prefixes(names: dict) -> dict[str, None]:
    """What stands before a network's own names, in order: before its stem or its first block."""
    found = [key.removesuffix(FIRST_BLOCK) for key in names if key == FIRST_BLOCK or key.endswith(f".{FIRST_BLOCK}")]
    stems = [key.removesuffix(STEM) for key in names if key == STEM or key.endswith(f".{STEM}")]
    found += [prefix for prefix in stems if any(name.startswith(f"{prefix}layer") for name in names)]
    return dict.fromkeys(found)


def _without_prefix(names: dict, source: object, key: str | None) -> dict[str, torch.Tensor]:
    """The tensors of the one network in `names`, by their names behind what all of them share."""
    tensors = {name: value for name, value in names.items() if torch.is_tensor(value)}
    found = list(_prefixes(tensors))
    if not found:
        if not tensors:
            held = ", ".join(list(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
            raise DataError(f"weights {source}: found no network in it ({held}), expected parameter names with tensors")
        return {name.removeprefix("module."): value for name, value in tensors.items()}
    if len(found) > 1:
        choose = " or ".join(f"{source}::{prefix.rstrip('.')}" for prefix in found if prefix)
        raise DataError(f"weights {source}: holds {len(found)} networks ({', '.join(found)}); choose {choose}")
    (prefix,) = found
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    left = [name for name in tensors if not name.startswith(prefix)]
    if left:
        shown = ", ".join(left[:SHOWN]) + (", ..." if len(left) > SHOWN else "")
        say_once(f"weights {source}: left out what is not under {prefix} ({shown})")
    return state
