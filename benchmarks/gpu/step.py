"""A training step, captured and not, beside PyTorch eager and compiled, and JAX: all warmed up together, timed in turn.

Each case is a size and a precision. A step is forward, backward and Adam; a turn is some steps and one wait for the
device at its end, so that no side waits in each step. PyTorch's batch lies on the device, ours comes from the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sizes import SIZES, Size, step_flops

from gpu.part import Turn
from gpu.sides import Side, Sides, interleaved

__all__ = ["CAPTURED", "COMPILED", "EAGER", "JAX", "OURS", "run", "sizes"]

OURS, CAPTURED = "tensorlib", "tensorlib, captured"
EAGER, COMPILED, JAX = "PyTorch eager", "torch.compile", "JAX jit"
LARGE = Size(1024, 16, 4096, 6, 32_000, 64, 64)
ROUNDS = 5
CASES = [
    ("small", "float32"),
    ("base", "float32"),
    ("small", "tf32"),
    ("small", "bf16"),
    ("base", "tf32"),
    ("base", "bf16"),
    ("d 1024", "bf16"),
]
PRECISIONS = ("float32", "tf32", "bf16", "fp16")

Case = tuple[str, str]  # size, precision


def sizes(rehearse: bool) -> Mapping[str, Size]:
    """Return the sizes by name; those of a rehearsal are tiny."""
    if not rehearse:
        return {**SIZES, "d 1024": LARGE}
    return {
        name: Size(8, 2, 12, 1, 20, 2, 4) if name != "d 1024" else Size(16, 2, 24, 1, 30, 2, 6)
        for name in (*SIZES, "d 1024")
    }


def run(turn: Turn) -> None:
    """Measure the cases; with --all the whole matrix, one size after the other, because they would not fit at once."""
    if turn.every:
        groups = [[(size, precision) for precision in PRECISIONS] for size in sizes(turn.rehearse)]
    else:
        groups = [[case for case in CASES if not (turn.rehearse and case[0] == "base")]]
    for i, cases in enumerate(groups):
        with Sides() as started:
            sides = {case: sides_of(case, cases, turn, started) for case in cases}
            started.ready(turn.ready)
            if i == 0:
                turn.wait()
            for done, case in enumerate(cases):
                measure(case, sides[case], turn, len(cases) - done)


def sides_of(case: Case, cases: list[Case], turn: Turn, started: Sides) -> dict[str, tuple[Side, str]]:
    """Start the sides of a case, and return each with the name of its step."""
    size, precision = case
    shape = list(sizes(turn.rehearse)[size])
    own: dict[str, Any] = {"size": shape, "backend": turn.backend, "precision": precision}
    found = {CAPTURED: started.side("gpu.ours:step", {**own, "capture": True})}
    if turn.every or precision == "float32" or size == "d 1024":
        found[OURS] = started.side("gpu.ours:step", {**own, "capture": False})
    eager = {"size": shape, "device": turn.device, "precisions": [p for s, p in cases if s == size]}
    found[EAGER] = started.side("gpu.pytorch:step", eager)
    if precision != "fp16" and (turn.every or precision == "float32"):
        found[COMPILED] = started.side("gpu.pytorch:step", {**eager, "precisions": [precision], "compiled": True})
        found[JAX] = started.side("gpu.jax_side:step", {"size": shape, "precision": precision})
    return {name: (side, precision) for name, side in found.items()}


def measure(case: Case, sides: Mapping[str, tuple[Side, str]], turn: Turn, left: int) -> None:
    """Time a case, one of those that are left, and write its rows."""
    size = sizes(turn.rehearse)[case[0]]
    interleaved(
        turn, ", ".join(case), sides, ROUNDS, left, tokens=size.tokens, flops=step_flops(size), precision=case[1]
    )
