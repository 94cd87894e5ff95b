"""BPE-dropout: the same text in other subwords each time, so that a model learns what words are made of.

SentencePiece has it too, but from version 0.2.2 on draws differently in every process, whatever its seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

__all__ = ["sample"]

_NONE = 2**31  # where no merge is possible: after all that are


def sample(processor: Any, texts: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
    """Return the ids of each text, cut by the processor's BPE model with each merge left out with a probability.

    A function of its arguments alone. Without dropout it is what the processor's own `encode` returns. Only for models
    as `Tokenizer.train` makes them: no piece reaches beyond a space, and earlier merges have smaller ids.
    """
    draw = random.Random(seed).random  # Python promises the same numbers in every version
    normal = [i for i in range(processor.get_piece_size()) if not _is_special(processor, i)]
    ids = {processor.id_to_piece(i): i for i in normal}
    bytes_ = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    sampled = []
    for text in texts:
        marked = "▁" + text.replace(" ", "▁") if text else ""
        pieces = [p for word in re.findall("▁[^▁]*", marked) for p in _cut(word, ids, dropout, draw)]
        known = [[ids[p]] if p in ids else [bytes_[byte] for byte in p.encode()] for p in pieces]
        sampled.append([i for piece in known for i in piece])
    return sampled


def _is_special(processor: Any, i: int) -> bool:
    return bool(processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i))


def _cut(word: str, ids: Mapping[str, int], dropout: float, draw: Callable[[], float]) -> list[str]:
    """Return the pieces of a word (Provilkov et al. 2020, algorithm 1).

    From characters on: of the merges that are possible each is left out with probability `dropout`, the first learned
    of the others is made, and so on, until none is left.
    """
    pieces = list(word)
    ranks = [ids.get(a + b, _NONE) for a, b in pairwise(pieces)]
    while True:
        best, at = _NONE, -1
        for i, rank in enumerate(ranks):
            if rank < best and draw() >= dropout:  # no need to draw for a merge that isn't the best so far
                best, at = rank, i
        if at < 0:
            return pieces
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        del ranks[at]
        for i in (at - 1, at):
            if 0 <= i < len(ranks):
                ranks[i] = ids.get(pieces[i] + pieces[i + 1], _NONE)
