"""Weights in and out of networks: by name (see named.py), from a file (reading.py), or shipped with the package."""

from pathlib import Path

import torch
from safetensors.torch import save

from fastres.machine import strict_json
from fastres.machine.errors import DataError
from fastres.model.named import is_name, named_state
from fastres.model.network import NO_SHORTCUTS, Architecture, ResNet, build, describe, has_shortcuts
from fastres.model.reading import check_values, read_weights
from fastres.schedules.types import Schedule

SHIPPED = Path(__file__).parent / "shipped"


def initial_network(schedule: Schedule, classes: int) -> ResNet:
    """The network a schedule starts from: pretrained with its own head, or fresh with `classes` outputs."""
    wanted = schedule.weights
    if wanted is None:
        return build(Architecture(schedule.arch, schedule.width, classes))
    state = named_state(schedule.arch, wanted) if is_name(wanted) else read_weights(weights_file(wanted))
    network = build(check_architecture(state, schedule))
    load(network, state, wanted)
    return network


def weights_file(wanted: str) -> Path | str:
    """The file, or FILE::KEY, that a schedule's weights are, where they are not fetched by name."""
    if wanted.startswith("shipped:"):
        return SHIPPED / f"{wanted.removeprefix('shipped:')}.safetensors"
    return wanted


def check_architecture(state: dict[str, torch.Tensor], schedule: Schedule) -> Architecture:
    """What a state dict is; DataError unless it is the schedule's network."""
    found = describe(state)
    if found is None or (found.arch, found.width) != (schedule.arch, schedule.width):
        keys = "torchvision's keys" if has_shortcuts(schedule.arch) else f"its key {NO_SHORTCUTS}, as fastres writes it"
        raise DataError(
            f"weights {schedule.weights}: found {found or what_is_missing(state)}, expected {schedule.arch} of width "
            f"{schedule.width} with {keys}; choose the file or --set arch=... and width=... to match"
        )
    return found


def load(network: ResNet, state: dict[str, torch.Tensor], source: object) -> None:
    """Strictly load `state`; DataError names what is missing, surplus or of another shape, or has values that no
    network has (see check_values)."""
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
    check_values(state, source)
    network.load_state_dict(state)


def save_weights(network: ResNet, metadata: dict) -> bytes:
    """The state dict as safetensors with torchvision's keys, and plain18's own, float32; `metadata` goes along as one
    JSON string."""
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    return save(state, {"fastres": strict_json.dumps(metadata, sort_keys=True)})


def network_from(state: dict[str, torch.Tensor], source: object) -> ResNet:
    """Rebuild whatever network a state dict belongs to. DataError if it is none of ours."""
    architecture = describe(state)
    if architecture is None:
        raise DataError(
            f"weights {source}: {what_is_missing(state)}, expected a torchvision resnet with a 7x7 or 3x3 stem"
        )
    network = build(architecture)
    load(network, state, source)
    return network


def what_is_missing(state: dict[str, torch.Tensor]) -> str:
    """Why a state dict describes no network of ours, by the names that it lacks."""
    if not state:
        return "no tensors"
    missing = [name for name in ("conv1.weight", "layer1.0.conv1.weight", "fc.weight") if name not in state]
    if missing:
        return f"no {' and no '.join(missing)}"
    shapes = {name: tuple(state[name].shape) for name in ("conv1.weight", "fc.weight")}
    stem, head = shapes.values()
    if len(stem) != 4 or stem[2] not in (3, 7) or len(head) != 2 or 0 in (*stem, *head):
        return ", ".join(f"{name} of size {shape}" for name, shape in shapes.items())
    return "layers of other lengths than those of a ResNet-18, 34, 50, 101 or 152"
