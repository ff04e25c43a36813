"""torch's backward pass in Python: its engine refuses fake cuda tensors on a machine without a GPU.

Nodes run in the order of their dependencies, gradients that meet are summed, and what a node has saved is let go of
once it has run, as the engine does: what is held on the device is then what the engine would hold.
"""

import torch


class Saved:
    """What autograd keeps for one node until that node has run."""

    used: list["Saved"] = []  # by the node that runs

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def take(self) -> torch.Tensor:
        Saved.used.append(self)
        return self.tensor


def keeping() -> torch.autograd.graph.saved_tensors_hooks:
    """The context in which a forward pass must run for `backward` to let go of what it saved."""
    return torch.autograd.graph.saved_tensors_hooks(Saved, Saved.take)


@torch.no_grad()
def backward(loss: torch.Tensor) -> None:
    """loss.backward(): puts gradients into the `grad` of all parameters that `loss` depends on."""
    waits = _dependencies(loss.grad_fn)
    ready, grads = [loss.grad_fn], {loss.grad_fn: {0: torch.ones_like(loss)}}
    while ready:
        node = ready.pop()
        mine = grads.pop(node, {})
        if hasattr(node, "variable"):
            _accumulate(node.variable, mine[0])
            continue
        out = _called(node, mine)
        del mine
        for saved in Saved.used:
            saved.tensor = None
        Saved.used.clear()
        for (child, index), grad in zip(node.next_functions, out if isinstance(out, tuple) else (out,), strict=True):
            if child is None:
                continue
            if grad is not None:
                shape = child._input_metadata[index].shape
                grad = grad if grad.shape == shape else grad.sum_to_size(shape)  # as the engine does under a broadcast
                slot = grads.setdefault(child, {})
                slot[index] = slot[index] + grad if index in slot else grad
            waits[child] -= 1
            if waits[child] == 0:
                ready.append(child)
        del out, grad


def _called(node, grads: dict[int, torch.Tensor]):
    """What a node hands to each of its inputs."""
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        return node(*(grads.get(i) for i in range(max(grads, default=0) + 1)))
    out = node.apply(*(grads.get(i) for i in range(len(node._input_metadata))))
    return out[-len(node.next_functions) :]  # a function written in Python: behind its arguments that are no tensors


def _dependencies(root) -> dict:
    """How many nodes hand each node a gradient."""
    waits, seen, stack = {}, {root}, [root]
    while stack:
        for child, _ in stack.pop().next_functions:
            if child is not None:
                waits[child] = waits.get(child, 0) + 1
                if child not in seen:
                    seen.add(child)
                    stack.append(child)
    return waits


def _accumulate(parameter: torch.Tensor, grad: torch.Tensor) -> None:
    """The engine takes a gradient that nobody else holds as it is, where its strides are the parameter's."""
    assert grad.dtype == parameter.dtype and grad.device == parameter.device, (grad.dtype, grad.device)
    if not same_strides(parameter, grad):
        grad = torch.empty_like(parameter).copy_(grad)
    parameter.grad = grad if parameter.grad is None else parameter.grad + grad


def same_strides(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors of one shape lie the same way in memory: strides of dimensions of length 1 say nothing."""
    return all(x == y for n, x, y in zip(a.shape, a.stride(), b.stride(), strict=True) if n != 1)
