"""One optimiser step. A step object is chosen before the loop and holds everything the loop need not know."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn import functional

from fastres import views
from fastres.data.batch import Batch
from fastres.machine.device import Precision
from fastres.model.fold import StageNetwork, compiled, compiling
from fastres.model.network import ResNet
from fastres.model.units import CPU_FUSED, PLAIN, Forms
from fastres.stage.guard import guarded_update
from fastres.stage.pull import Pull
from fastres.views.mixing import soft_labels

# logits f32 [B, C], labels i64 [B] or probabilities f32 [B, C] -> mean over B, f32 []
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class EagerStep:
    """batch -> views -> forward -> loss -> backward -> update, op by op. Reads nothing back from the device.

    The network is run in the form its stage allows (model/fold.py): frozen layers folded, frozen prefix forward-only.
    `forms` says whose kernels; a run's evaluations use the same.
    """

    forms: Forms = CPU_FUSED
    channels = 3  # of the images it sees

    def __init__(
        self,
        network: ResNet,
        optimizer: torch.optim.Optimizer,
        precision: Precision,
        loss: Loss = functional.cross_entropy,
        pull: Pull | None = None,
    ) -> None:
        """`network` is frozen as its stage says and in its training mode; it must not be changed afterwards.

        Each group of `optimizer` has its `factor`, as optimizer.py makes them. A `pull` adds to the gradients
        and to no loss that the step tells.
        """
        self.optimizer, self.precision, self.loss, self.pull = optimizer, precision, loss, pull
        self.forward = self._form(network)
        self.scaler = precision.scaler()
        self._guarded_update = guarded_update(optimizer, self.scaler)
        device = network.fc.weight.device
        self._loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int64, device=device)  # of the epoch, with a finite loss
        self._images = 0
        self._classes = network.fc.out_features
        # by batch size, written anew at every step: network input, and each view's share of its own image
        self._inputs: dict[int, torch.Tensor] = {}
        self._shares: dict[int, torch.Tensor] = {}

    def _form(self, network: ResNet) -> Callable[[torch.Tensor], torch.Tensor]:
        return StageNetwork(network, self.precision.dtype, forms=self.forms, channels=self.channels)

    def __call__(self, batch: Batch, plan: views.TrainPlan, lr: float) -> None:
        """One update from `batch` at rate `lr`."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        self._update(*self._examples(batch, plan))
        self._images += batch.step_images

    def _examples(self, batch: Batch, plan: views.TrainPlan) -> tuple[torch.Tensor, torch.Tensor]:
        """What the network sees of `batch` and what it is to answer, made on the device, in every kind of step: labels
        i64 [B], or f32 [B, classes] where views are mixed."""
        plan, size, own = self.seen(plan), len(batch.ids), None
        if plan.settings.mixes:
            if size not in self._shares:
                self._shares[size] = torch.empty(size, device=batch.labels.device)
            own = self._shares[size]
        x = views.apply(batch.images, batch.rows, batch.ids, plan, out=self._inputs.get(size), own=own)
        self._inputs[size] = x
        return x, batch.labels if own is None else soft_labels(batch.labels, own, self._classes)

    def seen(self, plan: views.TrainPlan) -> views.TrainPlan:
        """The views that this kind of step sees."""
        return replace(plan, channels=self.channels)

    def _update(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        """Forward, loss, backward, update; adds to the running loss on the device."""
        assert x.is_contiguous(memory_format=torch.channels_last), "network input must be channels-last"
        self.optimizer.zero_grad()  # to None, and first: the forward pass can then use the gradients' memory
        with self.precision.autocast():
            logits = self.forward(x)
        loss = self.loss(logits.float(), labels)
        summed, loss = self._weigh(loss, len(labels))
        self._loss_sum += summed
        good = self._loss_sum.isfinite()
        self._good_steps += good
        self.scaler.scale(loss).backward()
        if self.pull is not None:
            self.pull.add_gradient(self.scaler)
        self._guarded_update(good)

    def _weigh(self, loss: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What adds to the running loss and what goes down, from the mean loss of `size` images."""
        return loss.detach() * size, loss

    def mean_loss(self) -> float:
        """Mean training loss since the epoch began (nats). Waits for the device."""
        return self._loss_sum.item() / self._images if self._images else 0.0

    def good_steps(self) -> int:
        """Steps of the epoch before the first whose loss was not finite; all of them, if none. Waits for the device."""
        return int(self._good_steps.item())

    def begin_epoch(self) -> None:
        """Forget the losses of the epoch before."""
        self._loss_sum.zero_()
        self._good_steps.zero_()
        self._images = 0

    def state_dict(self) -> dict:
        """Optimiser, scaler and the epoch's running loss, for an exact resume in mid-epoch."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss_sum": self._loss_sum.item(),
            "images": self._images,
            "good_steps": self.good_steps(),
            **({} if self.pull is None else {"pull": self.pull.state_dict()}),
        }

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self._loss_sum.fill_(state["loss_sum"])
        self._images = state["images"]
        self._good_steps.fill_(state["good_steps"])
        if self.pull is not None:
            self.pull.load_state_dict(state["pull"])


class PlainStep(EagerStep):
    """The reference the other steps must agree with: torchvision's own modules, nothing folded."""

    def _form(self, network: ResNet) -> Callable[[torch.Tensor], torch.Tensor]:
        return network


class CompiledStep(EagerStep):
    """The stage's form through torch.compile: one compiled callable per stage, since frames compiled for one set of
    frozen parameters have been reused for another (torch issue 139476)."""

    forms = PLAIN

    def _form(self, network: ResNet) -> Callable[[torch.Tensor], torch.Tensor]:
        return compiled(super()._form(network))

    def _update(self, x: torch.Tensor, labels: torch.Tensor) -> None:
        with compiling("step compiled"):  # forward and backward compile when they are first run
            super()._update(x, labels)
