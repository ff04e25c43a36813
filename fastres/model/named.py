"""Pretrained weights by name: torchvision's `IMAGENET1K_V1`, timm's `timm:resnet18.a1_in1k`."""

import hashlib
import pickle
import re
from pathlib import Path

import torch

from fastres.machine.errors import DataError, MachineError, UsageError, first_line
from fastres.machine.extras import install_line
from fastres.model.network import BLOCKS, Architecture, has_shortcuts
from fastres.views import colour

TIMM = "timm:"


def is_name(weights: str) -> bool:
    """Whether these weights are fetched by name, from torchvision or timm."""
    return weights.startswith(("IMAGENET1K", TIMM))


def arch_of(name: str) -> tuple[str, str] | None:
    """(architecture, weights) of a name that stands alone: timm's, or torchvision's own such as
    `ResNet18_Weights.IMAGENET1K_V1`; None where the text is neither."""
    if name.startswith(TIMM):
        return name.removeprefix(TIMM).partition(".")[0], name
    family, found, entry = name.partition("_Weights.")
    arch = family.lower()
    return (arch, entry) if found and arch in BLOCKS and has_shortcuts(arch) else None


def named_architecture(arch: str, weights: str) -> Architecture:
    """What a name stands for, without fetching it. UsageError where there is no such name for `arch`."""
    _check_published(arch, weights)
    if weights.startswith(TIMM):
        return Architecture(arch, 64, _timm_configuration(arch, weights).num_classes)
    return Architecture(arch, 64, 1000)


def named_state(arch: str, weights: str) -> dict[str, torch.Tensor]:
    """Fetch the weights, or find them in the library's cache. MachineError without a network."""
    _check_published(arch, weights)
    fetch = _timm_state if weights.startswith(TIMM) else _torchvision_state
    return fetch(arch, weights)


def _check_published(arch: str, weights: str) -> None:
    if arch in BLOCKS and not has_shortcuts(arch):
        raise UsageError(
            f"weights {weights}: nobody publishes a {arch}, expected a resnet's name; pass --weights FILE with one "
            "that fastres pretrained, or --weights none"
        )


def _torchvision_state(arch: str, name: str) -> dict[str, torch.Tensor]:
    """torchvision's own getter runs what a cached file pickles and takes any file of that name: not here."""
    from torchvision.models import get_model_weights  # after model/network.py, which says how it loads

    try:
        url = get_model_weights(arch)[name].url
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"weights {name!r}: torchvision has none of that name for {arch}; expected IMAGENET1K_V1"
        ) from error
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    digest = re.search(r"-([0-9a-f]{8,})\.", file.name)[1]
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest)
        found = hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a damaged download is a RuntimeError
        raise _not_fetched(f"{name} of {arch}", error) from error
    if not found.startswith(digest):
        raise DataError(
            f"{file}: its sha256 begins with {found[: len(digest)]}, expected {digest}, which its name ends with; "
            "remove it, and it is downloaded again"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as weights alone; remove it, or pass a file with --weights") from error


def _timm_state(arch: str, weights: str) -> dict[str, torch.Tensor]:
    """timm's plain ResNets have torchvision's keys and function; its variants have other names (resnet18d, ...)."""
    _timm_configuration(arch, weights)
    import timm

    try:
        return timm.create_model(weights.removeprefix(TIMM), pretrained=True).state_dict()
    except Exception as error:  # its hub client raises OSErrors, HTTP libraries' own and RuntimeErrors
        raise _not_fetched(weights, error) from error


def _timm_configuration(arch: str, weights: str):
    """timm's record of the weights. UsageError for an unknown name, DataError where images are normalised otherwise."""
    try:
        from timm.models import get_pretrained_cfg
    except ImportError as error:
        raise MachineError(f"weights {weights}: timm is not installed ({error}); {install_line('timm')}") from error
    name = weights.removeprefix(TIMM)
    its_arch = name.partition(".")[0]
    if its_arch != arch or its_arch not in BLOCKS:
        raise UsageError(
            f"weights {weights}: names {its_arch!r}, expected {TIMM}{arch}.TAG, the schedule's network; "
            f"`timm.list_pretrained('{arch}.*')` has the tags"
        )
    try:
        configuration = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UsageError(f"weights {weights}: {error} `timm.list_pretrained('{arch}.*')` has the tags") from error
    if configuration is None:
        raise UsageError(
            f"weights {weights}: timm has no such network; `timm.list_pretrained('{arch}.*')` has the tags"
        )
    mean, std = tuple(colour.MEAN.tolist()), tuple(colour.STD.tolist())
    if (tuple(configuration.mean), tuple(configuration.std)) != (mean, std):
        raise DataError(
            f"weights {weights}: were trained on images normalised by mean {configuration.mean} and deviation "
            f"{configuration.std}, expected ImageNet's {mean} and {std}, which every view here has; choose another tag"
        )
    return configuration


def _not_fetched(what: str, error: Exception) -> MachineError:
    reason = first_line(error)
    return MachineError(
        f"weights {what} could not be downloaded ({reason}); fetch them where there is a network and pass the file "
        "with --weights FILE"
    )
