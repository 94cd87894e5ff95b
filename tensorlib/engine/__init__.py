"""The engine: values, nodes, the recording state and the backward pass."""
