"""The paper's two operations: a head for the data's classes (section 3.3), a stem for its image size (section 3.4).

Beyond the paper the head may be made of the rows that the pretrained one has for the classes.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fastres.machine.errors import UsageError
from fastres.model.network import ResNet, replace_stem
from fastres.schedules.types import KNOWN_HEAD
from fastres.views.resample import matrix

IMAGENET_CLASSES = 1000
IMAGENET_WNIDS = Path(__file__).parent / "shipped" / "imagenet_wnids.txt"  # in the order of its head's outputs
SHOWN = 5  # ids in a message

Views = Callable[[], Iterable[torch.Tensor]]  # batches of network input, f32 [B, 3, H, H]


def reset_head(network: ResNet, classes: int, generator: torch.Generator) -> None:
    """Replace fc by a fresh layer with `classes` outputs, in place.

    Uniform in +-1/sqrt(inputs) for weight and bias: Torch7's nn.Linear default, which section 5.1 used, and torch's.
    """
    old = network.fc
    bound = old.in_features**-0.5
    network.fc = nn.Linear(old.in_features, classes)
    with torch.no_grad():
        for parameter in network.fc.parameters():
            parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
    network.fc.to(old.weight.device)


def imagenet_rows(wnids: Sequence[str]) -> list[int]:
    """The outputs that ImageNet's 1,000-way head has for these class ids. UsageError for any that is none of its."""
    outputs = {wnid: row for row, wnid in enumerate(IMAGENET_WNIDS.read_text().split())}
    missing = [wnid for wnid in wnids if wnid not in outputs]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise UsageError(
            f"surgery {KNOWN_HEAD}: {len(missing)} of the data's {len(wnids)} classes are none of ImageNet's 1,000: "
            f"{', '.join(missing[:SHOWN])}{more}; expected WordNet ids that it has; use surgery fc, a fresh head"
        )
    return [outputs[wnid] for wnid in wnids]


@torch.no_grad()
def select_head(network: ResNet, wnids: Sequence[str]) -> None:
    """Keep of ImageNet's head the rows of these classes, in their order, in place. UsageError for another head."""
    old = network.fc
    check_imagenet_head(old.out_features)
    rows = torch.tensor(imagenet_rows(wnids), device=old.weight.device)
    network.fc = nn.Linear(old.in_features, len(rows), device=old.weight.device)
    network.fc.weight.copy_(old.weight[rows])
    network.fc.bias.copy_(old.bias[rows])


def check_imagenet_head(outputs: int) -> None:
    """UsageError unless a head has ImageNet's 1,000 outputs, whose order torchvision, timm and Torch7 share."""
    if outputs != IMAGENET_CLASSES:
        raise UsageError(
            f"surgery {KNOWN_HEAD}: the pretrained net has {outputs} outputs, expected ImageNet's {IMAGENET_CLASSES}; "
            "use surgery fc, a fresh head"
        )


def shrink_filters(filters: torch.Tensor, init: str) -> torch.Tensor:
    """7x7 filters f32 [F, 3, 7, 7] -> f32 [F, 3, 3, 3], without gain.

    torch7     align-corners bicubic, the paper's image.scale: it samples taps 0, 3 and 6
    antialias  area-true bicubic, widened by 7/3, so that every tap counts
    pi-resize  FlexiViT's pseudo-inverse resize (Beyer and others, CVPR 2023, section 3.4): of all small filters the one
               whose product with a patch made smaller by antialias is nearest to the old one's with the whole patch,
               for patches of uncorrelated pixels; `pullback` is the same for those of photos
    """
    convention = {"torch7": "torch7", "torch7-raw": "torch7", "antialias": "half-pixel", "pi-resize": "half-pixel"}
    resize = matrix(7, 3, convention[init])
    if init == "pi-resize":
        resize = np.linalg.pinv(resize.T)
    small = np.einsum("hs,ocst,wt->ochw", resize, filters.detach().cpu().double().numpy(), resize)
    return torch.from_numpy(small).float()


@torch.no_grad()
def replace_and_initialise_stem(
    network: ResNet,
    init: str,
    generator: torch.Generator,
    large: Views,
    small: Views,
    pull_back: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """7x7/2 convolution + max-pool -> 3x3/1 convolution, in place.

    init   torch7 or antialias (scaled filters, each with one gain that keeps the standard deviation of its response),
           torch7-raw (scaled filters as they come, as the paper), pi-resize (see shrink_filters), pullback (least
           squares on the responses, see pullback.py), or blank (Kaiming, from `generator`)
    large, small  make the same training views in the old geometry (224) and the new one (56); called only where
                  a gain is needed
    pull_back     7x7 filters -> 3x3 filters, for init pullback

    The gain is measured, not computed: the plain DC gain 49/9 would be off by 0.97 to 2 times, depending on the filter.
    UsageError if the stem was replaced before.
    """
    if network.conv1.kernel_size != (7, 7):
        raise UsageError(f"surgery stem:{init}: the stem is {network.conv1.kernel_size} already, expected 7x7")
    before = _response_std(network.conv1, large()) if init in ("torch7", "antialias") else None
    old = network.conv1.weight
    replace_stem(network)
    weight = network.conv1.weight
    if init == "blank":
        fan_out = weight.shape[0] * 9
        weight.copy_(torch.randn(weight.shape, generator=generator) * (2.0 / fan_out) ** 0.5)
        return
    if init == "pullback":
        weight.copy_(pull_back(old))
        return
    weight.copy_(shrink_filters(old, init))
    if before is not None:
        after = _response_std(network.conv1, small())
        # a dead filter responds to nothing before and after: leave it as it is
        gain = torch.where(after > 1e-12, before / after.clamp_min(1e-12), torch.ones_like(after))
        weight.mul_(gain.to(weight.dtype)[:, None, None, None])


def _response_std(conv: nn.Conv2d, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Standard deviation of each filter's response over all positions of all views, f64 [F]."""
    total = torch.zeros(2, conv.out_channels, dtype=torch.float64, device=conv.weight.device)
    count = 0
    for x in batches:
        y = conv(x.float())
        count += y.shape[0] * y.shape[2] * y.shape[3]
        total[0] += y.sum((0, 2, 3), dtype=torch.float64)
        total[1] += y.square().sum((0, 2, 3), dtype=torch.float64)
    mean = total[0] / count
    return (total[1] / count - mean.square()).clamp_min(0).sqrt()


@torch.no_grad()
def feature_sides(network: ResNet, crop: int) -> dict[str, int]:
    """Side of each stage's output for a crop of that side: equal before and after stem surgery, 7 in the end."""
    sides: dict[str, int] = {}
    hooks = [
        getattr(network, name).register_forward_hook(lambda _m, _i, y, name=name: sides.__setitem__(name, y.shape[-1]))
        for name in ("layer1", "layer2", "layer3", "layer4")
    ]
    was_training = network.training
    network.eval()
    weight = network.conv1.weight
    network(torch.zeros(1, 3, crop, crop, device=weight.device, dtype=weight.dtype))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return sides
