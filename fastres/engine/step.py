"""One optimiser step. A step object is chosen before the loop and holds everything the loop need not know."""

import torch
from torch import nn
from torch.nn import functional

from fastres import views
from fastres.data.resident import Batch
from fastres.engine.precision import Precision
from fastres.schedule_types import Optimizer


def sgd(parameters: list[nn.Parameter], settings: Optimizer, lr: float) -> torch.optim.SGD:
    """SGD as fb.resnet.torch: Nesterov momentum, no dampening, decay on everything that learns."""
    on_gpu = parameters[0].is_cuda
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=on_gpu or None,
        foreach=None if on_gpu else True,
    )


class EagerStep:
    """batch -> views -> forward -> loss -> backward -> update, op by op. Reads nothing back from the device."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision) -> None:
        self.network, self.optimizer, self.precision = network, optimizer, precision
        self.scaler = precision.scaler()
        device = next(network.parameters()).device
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._images = 0

    def __call__(self, batch: Batch, plan: views.TrainPlan, lr: float) -> None:
        """One update from `batch` at rate `lr`; frozen prefixes record no graph since nothing in them learns."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        x = views.apply(batch.images, batch.rows, batch.ids, plan)
        assert x.is_contiguous(memory_format=torch.channels_last), "network input must be channels-last"
        with self.precision.autocast():
            logits = self.network(x)
        loss = functional.cross_entropy(logits.float(), batch.labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._loss_sum += loss.detach() * len(batch.labels)
        self._images += len(batch.labels)

    def mean_loss(self) -> float:
        """Mean training loss since the epoch began (nats). Waits for the device."""
        return self._loss_sum.item() / self._images if self._images else 0.0

    def begin_epoch(self) -> None:
        """Forget the losses of the epoch before."""
        self._loss_sum.zero_()
        self._images = 0

    def state_dict(self) -> dict:
        """Optimiser, scaler and the epoch's running loss, for an exact resume in mid-epoch."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss_sum": self._loss_sum.item(),
            "images": self._images,
        }

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self._loss_sum.fill_(state["loss_sum"])
        self._images = state["images"]
