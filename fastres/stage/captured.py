"""The whole step as one CUDA graph: views, forward, backward, update and running loss replayed without the host.

At small batches a step is some two hundred kernels of a few microseconds each, and the host cannot launch them as fast
as the GPU runs them. A graph is launched once. What changes from step to step lies in fixed device tensors: the
batch's rows, labels and ids, the learning rate, and the key of chance (seed, stage, epoch).
"""

import copy
from dataclasses import replace

import torch

from fastres import views
from fastres.data.batch import Batch
from fastres.machine.device import Precision
from fastres.machine.errors import MachineError, UsageError
from fastres.stage.step import EagerStep

WARM_UP_STEPS = 3  # cuDNN's search, Triton's compilation and the optimiser's state must be over before recording


def check_capture(optimizer: str, precision: Precision, engine: str, impl: str = "auto") -> None:
    """Before any training: whether a step with optimizer.impl `optimizer`, the data of `engine` and views.impl `impl`
    can be recorded.

    UsageError where another setting makes it possible, MachineError where the device does not.
    """
    if precision.device.type != "cuda":
        raise MachineError("step captured: needs a GPU, found cpu; use --set step=eager")
    if precision.name == "fp16":
        raise UsageError(
            "step captured: needs fp32 or bf16, found fp16, whose loss scale the host decides; use another"
        )
    if optimizer == "apex":
        raise UsageError("step captured: needs torch's SGD, whose rate can be a tensor; drop optimizer.impl=apex")
    if impl == "torch":
        raise UsageError(
            "step captured: needs Triton's views, found views.impl=torch, whose draws come from the host; use "
            "views.impl=auto or --set step=eager"
        )
    if engine != "resident":
        raise UsageError(
            f"step captured: needs images that stay where they are, --engine {engine} moves them; use --engine "
            "resident or --set step=eager"
        )


class CapturedStep(EagerStep):
    """EagerStep recorded once and replayed. The last, partial batch of an epoch runs eagerly.

    Needs a GPU, resident images (a graph reads fixed addresses) and fp32 or bf16 (a loss scale's decision is the
    host's). Errors: see check_capture.
    """

    def __init__(self, network, optimizer: torch.optim.Optimizer, precision, *loss) -> None:
        super().__init__(network, optimizer, precision, *loss)
        check_capture("torch" if isinstance(optimizer, torch.optim.SGD) else "apex", precision, "resident")
        device = network.fc.weight.device
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

    def seen(self, plan: views.TrainPlan) -> views.TrainPlan:
        """Where `auto` chooses, views are Triton's and nothing takes their place: torch's cannot be recorded."""
        if plan.settings.impl == "auto":
            plan = replace(plan, settings=replace(plan.settings, impl="triton"))
        return super().seen(plan)

    def _step(self, plan: views.TrainPlan) -> None:
        """What is recorded: everything between the batch's ids and the updated weights."""
        self._update(*self._examples(self._static, plan))

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
        with torch.cuda.graph(self._graph, stream=stream):  # torch keeps one of its own, of the first device it saw
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
