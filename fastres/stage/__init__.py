"""The staged training engine: surgery, learning rate, which step, one step after the other."""
