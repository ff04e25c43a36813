"""The staged training engine: precision, learning rate, surgery between stages, one step, checkpoints."""
