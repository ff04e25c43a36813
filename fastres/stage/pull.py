"""Fine-tuning that remembers where it began: L2-SP (Li, Grandvalet and Davoine, ICML 2018).

Weight decay draws every weight to zero, so it wears down what pretraining found. Here each learning weight w of the
trunk is drawn to w0, what it was when its stage began, as if pull / 2 * sum (w - w0)^2 were added to the loss. The
head, which no pretraining made, keeps its weight decay.
"""

import torch

HEAD = "fc."


class Pull:
    """The penalty's gradient, and the weights that it pulls to."""

    def __init__(self, parameters: list[torch.nn.Parameter], strength: float) -> None:
        """`parameters` as the stage begins with them; `strength`: the stage's `pull`."""
        self._parameters, self._strength = parameters, strength
        self._start = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def add_gradient(self, scaler: torch.amp.GradScaler) -> None:
        """Add strength * (w - w0) to what the loss's backward pass left, which is `scaler`'s scale times its gradient.

        Two launches for all tensors; the penalty written into the loss took 375 for ResNet-18.
        """
        moved = torch._foreach_sub(self._parameters, self._start)
        if scaler.is_enabled():
            torch._foreach_mul_(moved, scaler.scale(torch.ones((), device=moved[0].device)))
        torch._foreach_add_([parameter.grad for parameter in self._parameters], moved, alpha=self._strength)

    def state_dict(self) -> list[torch.Tensor]:
        """The start: a stage that is resumed has moved from it."""
        return self._start

    def load_state_dict(self, start: list[torch.Tensor]) -> None:
        torch._foreach_copy_(self._start, start)


def pull_of(optimizer: torch.optim.Optimizer, strength: float) -> Pull | None:
    """The pull on the groups that optimizer.py marked for it; None where it is off or the head learns alone."""
    pulled = [p for group in optimizer.param_groups if group.get("pulled") for p in group["params"]]
    return Pull(pulled, strength) if pulled else None
