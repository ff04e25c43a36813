"""BatchNorm on batch statistics with what stands behind it, add and ReLU, in as few passes over memory as it takes.

reference.py  the definition in plain torch, in float64
kernels.py    the Triton kernels
function.py   what calls them: forward, backward, statistics
"""
