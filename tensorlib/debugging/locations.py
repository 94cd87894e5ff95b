"""How messages name an op, with the line and module where it was called."""

from __future__ import annotations

from tensorlib.engine.node import Node
from tensorlib.engine.recording import shown_line

__all__ = ["located_op", "location"]


def location(source: str | None, path: str) -> str:
    """Return "train.py:12 (in decoder)", or the part of it that is known."""
    module = f"in {path}" if path else ""
    if source is None:
        return module
    return f"{shown_line(source)} ({module})" if module else shown_line(source)


def located_op(node: Node) -> str:
    """Return "relu at train.py:12 (in decoder)", or the part of it that is known."""
    if node.source is None:
        return f"{node.name} in {node.path}" if node.path else node.name
    return f"{node.name} at {location(node.source, node.path)}"
