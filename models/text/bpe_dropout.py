"""BPE-dropout: different subwords for the same text each time, so that a model learns how words are composed.

SentencePiece also has BPE-dropout, but since version 0.2.2 its draws differ in every process, whatever the seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from sentencepiece import SentencePieceProcessor

__all__ = ["encode_with_dropout"]

_NO_MERGE = 2**31  # a rank after those of all possible merges


def encode_with_dropout(
    processor: SentencePieceProcessor, texts: Sequence[str], dropout: float, seed: int
) -> list[list[int]]:
    """Return the ids of each text, segmented by the processor's BPE model with merges skipped at random.

    The result depends on the arguments alone. With dropout 0 it equals the result of the processor's own `encode`. The
    model must be as trained by `Tokenizer.train`: no piece crosses a space, and earlier merges have smaller ids.
    """
    draw = random.Random(seed).random  # guaranteed by Python to be the same in every version
    normal = [i for i in range(processor.get_piece_size()) if not _is_special(processor, i)]
    ids = {processor.id_to_piece(i): i for i in normal}
    bytes_ = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]
    encoded = []
    for text in texts:
        marked = "▁" + text.replace(" ", "▁") if text else ""
        pieces = [p for word in re.findall("▁[^▁]*", marked) for p in _cut(word, ids, dropout, draw)]
        known = [[ids[p]] if p in ids else [bytes_[byte] for byte in p.encode()] for p in pieces]
        encoded.append([i for piece in known for i in piece])
    return encoded


def _is_special(processor: SentencePieceProcessor, i: int) -> bool:
    return bool(processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i))


def _cut(word: str, ids: Mapping[str, int], dropout: float, draw: Callable[[], float]) -> list[str]:
    """Return the pieces of a word (Provilkov et al. 2020, algorithm 1).

    The pieces start as single characters. Each round skips every possible merge with probability `dropout` and applies
    the one that was learned first among the others, until a round has none left.
    """
    pieces = list(word)
    ranks = [ids.get(a + b, _NO_MERGE) for a, b in pairwise(pieces)]
    while True:
        best, at = _NO_MERGE, -1
        for i, rank in enumerate(ranks):
            if rank < best and draw() >= dropout:  # a merge that is not the best so far needs no draw
                best, at = rank, i
        if at < 0:
            return pieces
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        del ranks[at]
        for i in (at - 1, at):
            if 0 <= i < len(ranks):
                ranks[i] = ids.get(pieces[i] + pieces[i + 1], _NO_MERGE)
