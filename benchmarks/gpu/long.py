"""Attention over up to 16,384 positions, forward and backward, causal with dropout: time, and memory by length."""

from __future__ import annotations

from gpu.part import Turn
from gpu.sides import Broken, Side, Sides, interleaved
from gpu.step import EAGER, OURS

__all__ = ["LENGTHS", "run"]

LENGTHS = (4096, 8192, 16_384)
HEADS, WIDTH = 8, 64
ROUNDS = 3


def run(turn: Turn) -> None:
    lengths, heads = ((8, 16), 2) if turn.rehearse else (LENGTHS, HEADS)
    with Sides() as started:
        same = {"lengths": lengths, "heads": heads, "width": WIDTH}
        sides = {
            precision: {
                OURS: started.side("gpu.ours:attention", {**same, "backend": turn.backend, "precision": precision}),
                EAGER: started.side("gpu.pytorch:attention", {**same, "device": turn.device, "precision": precision}),
            }
            for precision in (("float32",) if turn.rehearse else ("float32", "bf16"))
        }
        started.ready(turn.left())
        cases = [(precision, length) for precision in sides for length in lengths]
        for done, (precision, length) in enumerate(cases):
            flops = 7 * 2 * heads * length * length * WIDTH // 2  # seven products, half of which is hidden
            pair = {name: (side, str(length)) for name, side in sides[precision].items()}
            case = f"{length:,} positions, {precision}"
            interleaved(turn, case, pair, ROUNDS, len(cases) - done, flops=flops)
        for precision, length in cases:
            for name, side in sides[precision].items():
                memory(turn, f"{length:,} positions, {precision}, memory", name, side, {"peak": str(length)})


def memory(turn: Turn, case: str, name: str, side: Side, request: dict[str, str]) -> None:
    """Write a row with the bytes that a side answers."""
    try:
        turn.row(case, name, value=side.ask(request)["bytes"], unit="B")
    except Broken as broken:
        turn.row(case, name, **broken.why)
