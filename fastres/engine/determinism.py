"""The same bits from the same command on a GPU too: what --deterministic switches."""

import os

import torch


def make_deterministic() -> None:
    """From now on every torch operation of this process is deterministic or raises; slower on a GPU, nothing on a CPU.

    cuDNN's search for the fastest kernel ends, since its choice may differ from run to run; cuBLAS gets the workspace
    that its documentation asks for, which must be known before its first call. A CPU needs none of it: there a run
    repeats to the bit as long as torch, the number of threads and the processor's kind are the same.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds bugs, changes no result, costs bandwidth
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
