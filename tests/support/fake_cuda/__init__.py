"""The project's own code on fake `cuda` tensors, on a machine without a GPU: who waits, what is launched, what is held.

torch's FakeTensorMode computes shapes, dtypes and devices and no values. What it cannot see: numerics, cuDNN's inside,
kernels' real errors, what a CUDA graph refuses. It says what the host asks of a GPU, not that a GPU does it.
"""
