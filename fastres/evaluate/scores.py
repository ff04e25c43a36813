"""Class scores of every image in every view, in batches, on one process or several."""

import contextlib
from collections.abc import Callable

import torch
from torch import nn

from fastres import views
from fastres.data.batch import Split
from fastres.evaluate import combining
from fastres.machine.console import Progress, say
from fastres.machine.device import Precision
from fastres.machine.errors import DataError, MachineError
from fastres.machine.gpu import is_full
from fastres.machine.processes.world import World
from fastres.model.fold import StageNetwork, compiled, compiling
from fastres.model.network import ResNet
from fastres.model.units import CPU_FUSED, PLAIN, Forms
from fastres.schedules.types import ViewSettings
from fastres.views.geometry import Geometry

# Views in one forward pass. In float32 a 224-pixel view of ResNet-18 holds 5.8 MB at once (its stem's output is 3.2 MB,
# twice), of ResNet-50 9.9 MB: 256 views take 1.5 or 2.5 GB on a CPU. On a GPU 1,024 in bfloat16 take 3 or 5 GB, and
# no tensor has 2^31 elements; fewer of larger ones. Where its memory does not hold them, the number is halved until it
# does.
VIEWS_PER_PASS = {"cpu": 256, "cuda": 1024}
_fitting: dict[tuple, int] = {}  # images a pass, by what fills the memory: found once in a process, not at each epoch


def score(*given, **named) -> torch.Tensor:
    """As scores_on_device, whose arguments it takes, on the CPU: f32 [N, V, C]."""
    return scores_on_device(*given, **named).cpu()


@torch.no_grad()
def scores_on_device(
    network: nn.Module,
    data: Split,
    plan: views.TestPlan,
    precision: Precision,
    *,
    label: str = "evaluation",
    between: Callable[[], None] = lambda: None,
    world: World | None = None,
    compile: bool = False,
    forms: Forms = CPU_FUSED,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Class scores of every image and view: f32 [N, V, C] where the data are. Exactly N, in order, nothing padded.

    A GPU may still be at work when this returns: nothing is read back.

    A ResNet is folded first, whatever mode it is in, and compiled where `compile` asks for it; else `forms` says whose
    kernels run it. Anything else is put in eval mode and left there.
    `between` is called before every batch, and may raise to stop; `progress` counts the images of several calls.
    MachineError where not even one image fits the GPU.
    The processes of a `world` share the work, batch by batch, with the first one's BatchNorm statistics; all return
    all scores, on the CPU.
    """
    world = world or World(data.device)
    world.same_statistics(network)
    most = _views_per_pass(network, plan, data.device)
    network = folded(network, precision, compile, forms)
    kind = (data.device, plan.geometry, len(plan.views), precision, sum(w.numel() for w in network.parameters()))
    batch_size = _fitting.get(kind, max(1, most // len(plan.views)))
    ids = world.deal(len(data), batch_size)
    while True:
        try:
            with compiling(f"compiled {label}") if compile else contextlib.nullcontext():
                scores = _score(network, data, ids, plan, precision, batch_size, label, between, progress)
            return world.gather_rows(scores, ids, len(data))
        except RuntimeError as error:
            if not is_full(error):
                raise
            if batch_size == 1:
                raise MachineError(f"{label}: one image's views do not fit the GPU's memory; free it") from error
        batch_size = _fitting[kind] = batch_size // 2
        torch.cuda.empty_cache()
        say(f"{label}: the GPU's memory is full, going on with {batch_size} images a pass")


def _views_per_pass(network: nn.Module, plan: views.TestPlan, device: torch.device) -> int:
    """Fewer of large views: no more numbers come out of the first layer, which has the largest tensor, than of views of
    224 pixels where it looks at every other one, or of 112 where it looks at all."""
    stride = network.conv1.stride[0] if isinstance(network, ResNet) else 2
    return int(VIEWS_PER_PASS[device.type] * min(1.0, (112 * stride / plan.geometry.crop) ** 2))


def folded(network: nn.Module, precision: Precision, compile: bool = False, forms: Forms = CPU_FUSED) -> nn.Module:
    """What `score` computes with, which it takes as well: worth keeping where it is called often."""
    if isinstance(network, ResNet):
        network = StageNetwork(network, precision.dtype, inference=True, forms=PLAIN if compile else forms)
        network = compiled(network) if compile else network
    return network.eval()


def _score(
    network, data: Split, ids, plan: views.TestPlan, precision: Precision, batch_size: int, label, between, progress
):
    out, inputs = [torch.empty(0, len(plan.views), 0, device=data.device)] if len(ids) == 0 else [], {}
    with contextlib.nullcontext(progress) if progress else Progress(len(ids), label) as progress:
        for batch in data.batches(ids, batch_size):
            between()
            size = len(batch.ids)
            x = views.apply(batch.images, batch.rows, batch.ids, plan, out=inputs.get(size))
            inputs[size] = x  # written over by the next batch
            with precision.autocast():
                logits = network(x)
            out.append(logits.float().view(size, len(plan.views), -1))
            progress.update(size)
    return torch.cat(out)


def check_scores(scores: torch.Tensor, source: object, precision: Precision) -> None:
    """DataError where finite weights give scores [N, ..., C] that are not: they are too large to compute with."""
    bad = int((~scores.isfinite()).flatten(1).any(1).sum())
    if bad:
        raise DataError(
            f"weights {source}: their scores of {bad} of {len(scores)} images are not finite in {precision.name}, "
            "expected finite ones; try --precision fp32, or other weights"
        )


def evaluate(
    network: nn.Module,
    data: Split,
    geometry: Geometry,
    settings: ViewSettings,
    precision: Precision,
    between: Callable[[], None] = lambda: None,
    world: World | None = None,
    compile: bool = False,
    forms: Forms = CPU_FUSED,
) -> tuple[dict, torch.Tensor]:
    """The error table of a labelled split and the scores f32 [N, 12, C] it was made from. The rest: see score."""
    plan = views.twelve_views(geometry, settings, precision.dtype)
    world = world or World(data.device)
    scores = scores_on_device(
        network, data, plan, precision, between=between, world=world, compile=compile, forms=forms
    )
    return world.from_first(lambda: combining.error_table(scores.to(data.device), data.labels)), scores.cpu()
