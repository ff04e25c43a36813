"""Weights in and out: by name (see named.py), from a file, or shipped with the package. No stored code is ever run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torchvision.models.resnet import ResNet

from fastres.errors import DataError, MachineError
from fastres.model.named import arch_of, is_name, named_state
from fastres.model.network import Architecture, build, describe
from fastres.model.torch7 import state_from_t7
from fastres.schedule_types import Schedule

# What is relied on of the metadata beside the tensors. A file may come from anywhere.
METADATA = {
    "side": ("a multiple of 8", lambda value: type(value) is int and value >= 8 and value % 8 == 0),
    "classes": ("pairs of texts", lambda value: isinstance(value, list) and all(map(_is_pair, value))),
    "digest": ("text", lambda value: isinstance(value, str)),
    "upscale": ("a whole number from 1", lambda value: type(value) is int and value >= 1),
    "convention": ("half-pixel or torch7", lambda value: value in ("half-pixel", "torch7")),
    "class_digest": ("text", lambda value: isinstance(value, str)),
}
SHIPPED = Path(__file__).parent / "shipped"


def initial_network(schedule: Schedule, classes: int) -> ResNet:
    """The network a schedule starts from: pretrained with its own head, or fresh with `classes` outputs."""
    wanted = schedule.weights
    if wanted is None:
        return build(Architecture(schedule.arch, schedule.width, classes))
    if wanted.startswith("shipped:"):
        state = read_weights(SHIPPED / f"{wanted.removeprefix('shipped:')}.safetensors")
    elif is_name(wanted):
        state = named_state(schedule.arch, wanted)
    else:
        state = read_weights(Path(wanted))
    network = build(check_architecture(state, schedule))
    load(network, state, wanted)
    return network


def check_architecture(state: dict[str, torch.Tensor], schedule: Schedule) -> Architecture:
    """What a state dict is; DataError unless it is the schedule's network."""
    found = describe(state)
    if found is None or (found.arch, found.width) != (schedule.arch, schedule.width):
        raise DataError(
            f"weights {schedule.weights}: found {found or _sample_of_keys(state)}, expected {schedule.arch} of width "
            f"{schedule.width} with torchvision's keys; choose the file or --set arch=... and width=... to match"
        )
    return found


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from .safetensors, a .pth/.pt written by torch.save, or fb.resnet.torch's .t7; tensors on the CPU.

    A training checkpoint that holds its weights under `network` (ours), `state_dict` or `model` is accepted, and
    DataParallel's `module.` prefix is dropped. MachineError if there is no such file, DataError if it
    is damaged or carries anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise MachineError(f"weights {path}: no such file; fetch it, or pass --weights FILE (.safetensors, .pth, .t7)")
    if path.suffix == ".t7":
        return state_from_t7(path)
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"weights {path}: not readable ({reason}); get the file again") from error
    except Exception as error:  # weights_only raises pickle.UnpicklingError on code, and others on damage
        raise DataError(
            f"weights {path}: holds more than tensors or is damaged, so it was not loaded ({type(error).__name__}); "
            "save its state_dict alone, best as .safetensors"
        ) from error
    for key in ("network", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"weights {path}: found no state dict, expected parameter names with tensors")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load(network: ResNet, state: dict[str, torch.Tensor], source: object) -> None:
    """Strictly load `state`; DataError names what is missing, surplus or of another shape."""
    own = network.state_dict()
    # files from before torch 0.4.1 lack the counters; they are never read in eval mode and start at zero
    state = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")} | state
    missing, surplus = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    for what, names in (("missing", missing), ("unknown", surplus), ("of another shape", sorted(shapes))):
        if names:
            raise DataError(
                f"weights {source}: {len(names)} {what}, first {', '.join(names[:3])}; expected {describe(own)}"
            )
    network.load_state_dict(state)


def save_weights(network: ResNet, metadata: dict) -> bytes:
    """The state dict as safetensors with torchvision's keys, float32; `metadata` goes along as one JSON string."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    return save(state, {"fastres": json.dumps(metadata, sort_keys=True)})


def read_model(target: Path) -> tuple[dict[str, torch.Tensor], dict, object]:
    """State dict, metadata and source of what a user means by a run's folder, a file, or a name (named.arch_of).

    DataError for a run that is not finished, a damaged file, or tensors that are not those of the digest beside them.
    """
    if (named := arch_of(str(target))) and not target.exists():
        return named_state(*named), {}, str(target)
    weights = final_weights(target)
    state, metadata = read_weights(weights), read_metadata(weights)
    check_digest(state, metadata, weights)
    return state, metadata, weights


def read_metadata(path: Path) -> dict:
    """What save_weights put beside the tensors; {} for a file from elsewhere. DataError where it makes no sense."""
    if Path(path).suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("fastres", "{}")
    return parse_metadata(text, path)


def parse_metadata(text: str, path: Path) -> dict:
    """The JSON object that stands in the file at `path`. DataError where it makes no sense."""
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise DataError(f"weights {path}: its metadata is not JSON ({error}); get the file again") from error
    if not isinstance(metadata, dict):
        raise DataError(f"weights {path}: its metadata is {text[:40]!r}, expected a JSON object; get the file again")
    for name, (expected, holds) in METADATA.items():
        if name in metadata and not holds(metadata[name]):
            raise DataError(
                f"weights {path}: its metadata says {name} {metadata[name]!r}, expected {expected}; get the file "
                "again, or save its tensors alone"
            )
    return metadata


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)


def digest_of(state: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names and contents in the order of names."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].detach().cpu().contiguous().numpy())
    return found.hexdigest()


def check_digest(state: Mapping[str, torch.Tensor], metadata: dict, path: Path) -> None:
    """DataError where the tensors are not those that the digest beside them was made of."""
    if "digest" in metadata and metadata["digest"] != digest_of(state):
        raise DataError(f"weights {path}: its tensors do not match the digest beside them; get the file again")


def final_weights(target: Path) -> Path:
    """The weights file a user means by a file or a run's folder. DataError if the run is not finished."""
    if not target.is_dir():
        return target
    weights = target / "final.safetensors"
    if not weights.is_file():
        raise DataError(f"{target}: has no final.safetensors, so its run is not finished; train it to its end first")
    return weights


def network_from(state: dict[str, torch.Tensor], source: object) -> ResNet:
    """Rebuild whatever network a state dict belongs to. DataError if it is none of ours."""
    architecture = describe(state)
    if architecture is None:
        raise DataError(
            f"weights {source}: {_sample_of_keys(state)}, expected a torchvision resnet with a 7x7 or 3x3 stem"
        )
    network = build(architecture)
    load(network, state, source)
    return network


def _sample_of_keys(state: dict) -> str:
    return f"keys {', '.join(list(state)[:3])}, ..." if state else "no tensors"
