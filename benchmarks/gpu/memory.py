"""The memory that a training step takes from the card: weights, optimizer and step, without context and libraries.

The processes start together and take turns, so that what one of them allocates is the change of the card's free bytes.
"""

from __future__ import annotations

from typing import Any

from gpu.long import memory
from gpu.part import Turn
from gpu.sides import Side, Sides
from gpu.step import CAPTURED, EAGER, JAX, OURS, sizes

__all__ = ["run"]

CASES = [("small", "float32"), ("base", "float32"), ("d 1024", "bf16")]


def run(turn: Turn) -> None:
    with Sides() as started:
        cases = {case: sides_of(*case, turn, started) for case in (CASES[:1] if turn.rehearse else CASES)}
        started.ready(turn.left())
        for (size, precision), sides in cases.items():
            for name, side in sides.items():
                request = {"peak" if name == JAX else "taken": precision}
                memory(turn, f"{size}, {precision}", name, side, request)
                side.close()


def sides_of(size: str, precision: str, turn: Turn, started: Sides) -> dict[str, Side]:
    """Start the sides of a case, without building their steps."""
    shape = list(sizes(turn.rehearse)[size])
    own: dict[str, Any] = {"size": shape, "backend": turn.backend, "precision": precision, "warm": 0}
    found = {
        CAPTURED: started.side("gpu.ours:step", {**own, "capture": True}),
        OURS: started.side("gpu.ours:step", {**own, "capture": False}),
        EAGER: started.side(
            "gpu.pytorch:step", {"size": shape, "device": turn.device, "precisions": [precision], "warm": 0}
        ),
    }
    if turn.every:
        found[JAX] = started.side("gpu.jax_side:step", {"size": shape, "precision": precision, "warm": 0})
    return found
