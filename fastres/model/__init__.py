"""The network: torchvision's residual nets, their weights, surgery on them, and what of them learns."""
