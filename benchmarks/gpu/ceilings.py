"""What the card can do, as PyTorch reaches it: bytes copied a second, and products of large matrices by precision."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gpu.machine import card
from gpu.part import Turn
from gpu.sides import Broken, Sides

__all__ = ["COPY", "run"]

COPY = "copy"
PRECISIONS = ("float32", "tf32", "bf16")
WIDTH, COPIED = 8192, 2**30
ROUNDS = 3


def run(turn: Turn) -> None:
    width, copied = (64, 2**16) if turn.rehearse else (WIDTH, COPIED)
    with Sides() as started:
        side = started.side("gpu.pytorch:ceilings", {"device": turn.device, "width": width, "copied": copied})
        started.ready(turn.left())
        work = {COPY: (2 * copied, "B/s"), **dict.fromkeys(PRECISIONS, (2 * width**3, "FLOP/s"))}
        for name, (amount, unit) in work.items():
            try:
                calls = max(1, round(0.2 / max(side.seconds.get(name, 1), 1e-3)))
                best = min(side.ask({"run": name, "calls": calls})["seconds"] for _ in range(ROUNDS))
                with ThreadPoolExecutor() as pool:  # the clocks while it is busy
                    pool.submit(side.ask, {"run": name, "calls": 5 * calls})
                    clocks = card()
            except Broken as broken:
                turn.row(name, "ceiling", **broken.why)
            else:
                turn.row(name, "ceiling", value=amount / best, unit=unit, library=side.library, clocks=clocks)
