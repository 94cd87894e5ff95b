"""Functions of functions: derivatives, recomputation, and the gradient check."""
