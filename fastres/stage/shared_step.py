"""One optimiser step made by several processes: torch's DistributedDataParallel around the step's form of the network.

Each process takes the mean loss of its own slice. The slices may differ in size, so the loss that goes down is scaled
by world * local / global; DDP's average of the gradients is then the gradient of the global batch's mean loss.
"""

import inspect
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastres import views
from fastres.machine.errors import MachineError, UsageError
from fastres.model.fold import StageNetwork
from fastres.stage.sync_bn import synchronise

# whether DDP sends all buffers before every forward: its name changed in torch 2.15
_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


def shared(kind: type, world, sync_bn: bool) -> type:
    """The class `kind` of step, made by all processes of `world` together.

    MachineError for a kind that records a CUDA graph; UsageError for --sync-bn with the plain one or a fused one.
    """
    from fastres.stage.captured import CapturedStep
    from fastres.stage.fused import check_fused, is_fused
    from fastres.stage.step import PlainStep

    if issubclass(kind, CapturedStep):
        raise MachineError(
            f"step captured: one process only, found {world.size}; DDP launches collectives outside of the graph; use "
            "--set step=eager"
        )
    if sync_bn and issubclass(kind, PlainStep):
        raise UsageError("--sync-bn: step plain has torchvision's own BatchNorm, expected --set step=eager")
    if is_fused(kind):
        check_fused(world.device, sync_bn)
    forms = replace(kind.forms, casts=False)  # DDP sends a gradient as soon as it is there
    return type(f"Shared{kind.__name__}", (_Shared, kind), {"world": world, "sync_bn": sync_bn, "forms": forms})


class _Shared:
    """Mixed in before a kind of step."""

    def _form(self, network: nn.Module) -> nn.Module:
        self._met: set[int] = set()  # sizes of global batches
        form = super()._form(network)
        if self.sync_bn:
            form = synchronise(form, self.world.sum_over_all)
        device = self.world.device
        ddp = DistributedDataParallel(
            _MaybeNothing(form, network.fc, self.sync_bn),
            device_ids=[device] if device.type == "cuda" else None,
            **{_BUFFERS: False},  # statistics are the first process's; see World.same_statistics
        )
        if self.world.size > 2 and (device.type == "cpu" or torch.are_deterministic_algorithms_enabled()):
            ddp.register_comm_hook(self.world, average_in_rank_order)
        return ddp

    def __call__(self, batch, plan, lr: float) -> None:
        self._whole = batch.step_images
        if self._whole not in self._met:  # compiling may take longer than a collective waits
            x = views.apply(batch.images, batch.rows, batch.ids, self.seen(plan))
            self._compile(x)
            self.world.meet()
            self._met.add(self._whole)
        try:
            super().__call__(batch, plan, lr)
        except RuntimeError as error:  # out of DDP's collectives
            raise self.world.lost(error) or error from error

    def _compile(self, x: torch.Tensor) -> None:
        """What this size of slice compiles, forward and backward, before anybody waits: slices of a batch may differ in
        size, so that some processes have theirs compiled already and some have not."""
        from fastres.stage.step import CompiledStep

        form, network = self.forward.module, self.forward.module.form
        if not isinstance(self, CompiledStep) or self.sync_bn or not len(x):
            return
        counters = [n for form in network.modules() if isinstance(form, StageNetwork) for n in form.counters]
        kept = [(buffer, buffer.clone()) for buffer in (*network.buffers(), *counters)]
        with self.precision.autocast():
            logits = form(x)
        learning = [p for p in network.parameters() if p.requires_grad]
        torch.autograd.grad(logits.float().sum(), learning, allow_unused=True)  # DDP does not see it
        for buffer, before in kept:
            buffer.copy_(before)

    def _weigh(self, loss: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The global batch's summed loss, and what this process sends down."""
        own = loss.detach().double() * size if size else torch.zeros_like(loss, dtype=torch.float64)
        return self.world.sum_over_all(own), loss * (self.world.size * size / self._whole)


class _MaybeNothing(nn.Module):
    """The form of the network; for an empty slice, no logits [0, classes] that still reach every learning parameter,
    since DDP waits for all their gradients. Not through the network: a BatchNorm has no mean of nothing."""

    def __init__(self, form: nn.Module, head: nn.Linear, sync_bn: bool) -> None:
        """`sync_bn`: an empty slice goes through the network too, as the other processes wait for its sums."""
        super().__init__()
        self.form, self.classes, self.runs_empty = form, head.out_features, sync_bn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) or self.runs_empty:
            return self.form(x)
        learning = [p for p in self.form.parameters() if p.requires_grad]
        return sum(p.sum() for p in learning).expand(0, self.classes)


def average_in_rank_order(world, bucket) -> torch.futures.Future[torch.Tensor]:
    """DDP's hook for a bucket of gradients: the mean, added up in the order of the processes.

    A ring's order of adding depends on where in the bucket a gradient lies, and DDP lays its buckets out anew after
    its first step: with three or more processes a resumed run would differ in the last bit.
    """
    import torch.distributed as dist

    own = bucket.buffer()
    everyones = [torch.empty_like(own) for _ in range(world.size)]
    dist.all_gather(everyones, own)
    together = everyones[0]
    for part in everyones[1:]:
        together += part
    future = torch.futures.Future()
    future.set_result(together.div_(world.size))
    return future
