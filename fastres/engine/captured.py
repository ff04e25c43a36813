"""The whole step as one CUDA graph: views, forward, backward, update and running loss replayed without the host.

At small batches a step is some two hundred kernels of a few microseconds each, and the host cannot launch them as fast
as the GPU runs them. A graph is launched once. What changes from step to step lies in fixed device tensors: the
batch's rows, labels and ids, the learning rate, and the key of chance (seed, stage, epoch).
"""

import copy

import torch

from fastres import views
from fastres.data.resident import Batch
from fastres.engine.step import EagerStep
from fastres.errors import MachineError

WARM_UP_STEPS = 3  # cuDNN's search, Triton's compilation and the optimiser's state must be over before recording


class CapturedStep(EagerStep):
    """EagerStep recorded once and replayed. The last, partial batch of an epoch runs eagerly.

    Needs a GPU, resident images (a graph reads fixed addresses) and fp32 or bf16 (a loss scale's decision is the
    host's). MachineError otherwise.
    """

    def __init__(self, network, optimizer: torch.optim.Optimizer, precision, *loss) -> None:
        super().__init__(network, optimizer, precision, *loss)
        device = network.fc.weight.device
        if not isinstance(optimizer, torch.optim.SGD):
            raise MachineError("step captured: needs torch's SGD, whose rate can be a tensor; drop optimizer.impl=apex")
        if device.type != "cuda" or precision.name == "fp16":
            raise MachineError(
                f"step captured: needs a GPU and fp32 or bf16, found {device.type} and {precision.name}; "
                "use --set step=eager"
            )
        self._network = network
        self._lr = [torch.zeros((), device=device) for _ in optimizer.param_groups]
        self._static: Batch | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, plan: views.TrainPlan, lr: float) -> None:
        """One update; the first batch of the largest size also records the graph."""
        if self._static is None or len(batch.ids) > len(self._static.ids):
            self._record(batch, plan)  # anew, if the first batch after a resume was an epoch's partial one
        elif len(batch.ids) < len(self._static.ids):
            super().__call__(batch, plan, lr)
            return
        if batch.images.data_ptr() != self._static.images.data_ptr():
            raise MachineError("step captured: images moved, expected a resident engine; use --set step=eager")
        from fastres.views.triton_views import set_key

        set_key(plan, batch.images.device)
        self._static.rows.copy_(batch.rows)
        self._static.labels.copy_(batch.labels)
        self._static.ids.copy_(batch.ids)
        for rate, group in zip(self._lr, self.optimizer.param_groups, strict=True):
            rate.fill_(lr * group["factor"])
        self._graph.replay()
        self._images += len(batch.ids)

    def _step(self, plan: views.TrainPlan) -> None:
        """What is recorded: everything between the batch's ids and the updated weights."""
        static = self._static
        size = len(static.ids)
        self._inputs[size] = views.apply(
            static.images, static.rows, static.ids, plan, out=self._inputs.get(size)
        )
        self._update(self._inputs[size], static.labels)

    def _record(self, batch: Batch, plan: views.TrainPlan) -> None:
        """Warm up on a side stream, put everything back as it was, then record."""
        self._static = Batch(batch.images, batch.rows.clone(), batch.labels.clone(), batch.ids.clone())
        for rate, group in zip(self._lr, self.optimizer.param_groups, strict=True):
            group["lr"] = rate  # fused SGD reads a tensor's value at replay
        self._make_momentum()
        before = self._snapshot()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._step(plan)
        torch.cuda.current_stream().wait_stream(stream)
        self._restore(before)
        self.optimizer.zero_grad()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step(plan)
        self._restore(before)  # recording runs nothing, but a kernel compiled during it may have

    def _make_momentum(self) -> None:
        """Momentum buffers of zeros. torch's first step copies the gradient into a missing buffer instead of adding to
        it: with no dampening that is the same number, but another graph."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state[parameter]
                if state.get("momentum_buffer") is None and group["momentum"]:
                    state["momentum_buffer"] = torch.zeros_like(parameter)

    def _tensors(self) -> list[torch.Tensor]:
        momenta = [v for state in self.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
        return [*self._network.parameters(), *self._network.buffers(), *momenta, self._loss_sum, self._good_steps]

    def _snapshot(self) -> list[torch.Tensor]:
        return [tensor.detach().clone() for tensor in self._tensors()]

    @torch.no_grad()
    def _restore(self, before: list[torch.Tensor]) -> None:
        """In place: the graph will read these very addresses."""
        for tensor, value in zip(self._tensors(), before, strict=True):
            tensor.copy_(value)

    def state_dict(self) -> dict:
        """As EagerStep's, with the rate as a number: a checkpoint does not depend on the kind of step."""
        state = super().state_dict()
        state["optimizer"] = copy.deepcopy(state["optimizer"])
        for group in state["optimizer"]["param_groups"]:
            group["lr"] = float(group["lr"])
        return state

    def load_state_dict(self, state: dict) -> None:
        """Before the first step only: a recorded graph would go on with the old addresses."""
        assert self._graph is None, "load a checkpoint before the first step"
        super().load_state_dict(state)
