"""Greedy and beam decoding beside MarianMTModel on the same card, both untrained, with the same numbers of tokens.

The sentences are those of `benchmarks/decode.py`: random ids, with lengths like Multi30k's; no side may end a sentence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sizes import FIRST_WORD, Size

from gpu.part import Turn
from gpu.sides import Sides, interleaved
from gpu.step import OURS, sizes

__all__ = ["MARIAN", "run"]

MARIAN = "MarianMT"
EOS = 3
BEAM = 4
ROUNDS = 3


def run(turn: Turn) -> None:
    names = ("small", "base") if turn.every else ("small",)
    total, per_batch, beams = (6, (2, 6), (1, 2)) if turn.rehearse else (200, (50, 200), (1, BEAM))
    with Sides() as started:
        pairs = {}
        for name in names:
            size = sizes(turn.rehearse)[name]
            usual = 3 if turn.rehearse else 15
            batches = {str(batch): batches_of(size, total, batch, usual) for batch in per_batch}
            same: dict[str, Any] = {"size": list(size), "batches": batches, "beams": beams}
            ours = started.side("gpu.ours:decoding", {**same, "backend": turn.backend})
            pairs[name] = ours, started.side("gpu.marian:decoding", {**same, "device": turn.device})
        started.ready(turn.ready)
        turn.wait()
        cases = [(name, beam, batch) for name in pairs for beam in beams for batch in per_batch]
        for done, (name, beam, batch) in enumerate(cases):
            step = f"beam {beam}, {batch}"
            case = f"{name}, {'greedy' if beam == 1 else f'beam {beam}'}, batch {batch}"
            sides = {side: (process, step) for side, process in zip((OURS, MARIAN), pairs[name], strict=True)}
            found = interleaved(turn, case, sides, ROUNDS, len(cases) - done, generated=True)
            if len({side["result"] for side in found.values()}) > 1:
                turn.row(case, "both", failed=f"numbers of tokens differ: {found}")


def batches_of(size: Size, sentences: int, batch: int, usual: int) -> list[list[list[int]]]:
    """Return sources of a usual length, each ending in </s>, sorted by length and divided into batches."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(usual, usual / 3, sentences).round(), 2, 40).astype(int)
    sources = [[*rng.integers(FIRST_WORD, size.vocabulary, n - 1).tolist(), EOS] for n in sorted(lengths)]
    return [sources[i : i + batch] for i in range(0, sentences, batch)]
