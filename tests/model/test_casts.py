"""Learning weights cast together are those that torch.autocast casts one by one, to the bit, and so are gradients."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastres.model.fold import StageNetwork
from fastres.model.freeze import set_trainable, training_mode
from fastres.model.network import Architecture, build
from fastres.model.units import CPU_FUSED
from fastres.schedules.types import Stage
from fastres.stage.shared_step import shared
from fastres.stage.step import EagerStep

STAGES = {
    "all": Stage(name="all", epochs=1, train=("*",), upscale=1),
    "head": Stage(name="head", epochs=1, train=("fc.*",), upscale=1),
    "norms": Stage(name="norms", epochs=1, train=("*.bn1.*", "fc.bias"), upscale=1),
    "a part, frozen norms": Stage(name="part", epochs=1, train=("layer4.*.conv*", "fc.*"), upscale=1, bn="frozen"),
    "a part, moving norms": Stage(name="part", epochs=1, train=("layer3.*", "fc.weight"), upscale=1, bn="batch"),
}


class Copies(TorchDispatchMode):
    """Counts the casts, of whatever kind."""

    def __init__(self) -> None:
        super().__init__()
        self.single, self.together = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.single += func.overloadpacket is torch.ops.aten._to_copy
        self.together += func.overloadpacket is torch.ops.aten._foreach_copy_
        return func(*args, **(kwargs or {}))


def gradients(stage: Stage, dtype: torch.dtype, casts: bool, arch: str = "resnet18", channels: int = 3):
    """Logits, each learning parameter's gradient, and the casts of a forward and a backward pass."""
    torch.manual_seed(0)
    network = build(Architecture(arch, 8, 5))
    set_trainable(network, stage.train)
    training_mode(network, stage)
    form = StageNetwork(network, dtype, forms=replace(CPU_FUSED, casts=casts), channels=channels)
    x = torch.zeros(4, channels, 32, 32, dtype=dtype).to(memory_format=torch.channels_last)
    x[:, :3] = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with Copies() as copies:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = form(x)
        logits.float().square().mean().backward()
    return logits.detach(), {n: p.grad for n, p in network.named_parameters() if p.requires_grad}, copies


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stage", STAGES)
def test_the_same_bits(stage, dtype):
    logits, wanted, _ = gradients(STAGES[stage], dtype, casts=False)
    ours, found, _ = gradients(STAGES[stage], dtype, casts=True)
    assert torch.equal(ours, logits) and wanted.keys() == found.keys() and wanted
    for name, gradient in wanted.items():
        assert torch.equal(found[name], gradient) and found[name].dtype == torch.float32, name


def test_images_of_four_channels_meet_a_weight_of_four():
    """stage/padded.py: the weight is cast first and then padded, and its gradient has three channels again."""
    logits, wanted, _ = gradients(STAGES["all"], torch.bfloat16, casts=False, channels=4)
    ours, found, _ = gradients(STAGES["all"], torch.bfloat16, casts=True, channels=4)
    assert torch.equal(ours, logits) and found["conv1.weight"].shape[1] == 3
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_two_casts_are_left_of_all_weights(arch):
    _, _, one_by_one = gradients(STAGES["all"], torch.bfloat16, False, arch)
    _, _, together = gradients(STAGES["all"], torch.bfloat16, True, arch)
    weights = {"resnet18": 20, "resnet50": 53}[arch] + 2  # convolutions, and the head's two
    assert one_by_one.together == 0 and together.together == 2
    assert one_by_one.single - together.single == 2 * weights


def test_where_nothing_is_to_cast_nothing_is():
    _, _, copies = gradients(STAGES["all"], torch.float32, casts=True)
    assert copies.together == 0
    network = build(Architecture("resnet18", 8, 5))
    form = StageNetwork(training_mode_of(network), torch.bfloat16)
    x = torch.randn(2, 3, 32, 32, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    with Copies() as copies, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        form(x)
    assert copies.together == 0, "no gradient is asked for"
    with pytest.raises(RuntimeError), torch.autocast("cpu", torch.bfloat16):
        form(x[:, :2])
    assert not form._casts._now, "a pass that fails holds none of its weights"


def training_mode_of(network):
    training_mode(network, STAGES["all"])
    return network


def test_processes_that_share_a_step_cast_one_by_one():
    """DDP sends gradients while others are still computed."""

    class World:
        size, device = 2, torch.device("cpu")

    assert EagerStep.forms.casts and not shared(EagerStep, World(), sync_bn=False).forms.casts
