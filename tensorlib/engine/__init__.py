"""The engine: values, nodes, what is recorded, and the backward pass."""
