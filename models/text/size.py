"""How much text there is: what the defaults of a training run follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.text.lines import Pair

__all__ = ["TextSize", "measure"]


@dataclass(frozen=True)
class TextSize:
    """The size of a parallel text. The default is a text of the size that most of our figures were measured on."""

    pairs: int = 29_000
    characters: tuple[int, int] = (100, 100)  # number of different characters of the source and of the target
    same_letters: bool = True  # whether most letters of each text also occur in the other
    # (maximum of positions, or else of sentences, in a batch) -> batches in an epoch, once subwords are learned
    batches: Callable[[int, int], int] | None = None


def measure(pairs: Sequence[Pair]) -> TextSize:
    """Return the size of a non-empty text.

    >>> measure([("eine Katze", "a cat"), ("ein Hund", "a dog")])
    TextSize(pairs=2, characters=(12, 7), same_letters=False, batches=None)
    """
    source, target = _characters(s for s, _ in pairs), _characters(t for _, t in pairs)
    same = min(_common(source, target), _common(target, source)) >= 0.5  # English words do occur in Chinese text
    return TextSize(len(pairs), (len(source), len(target)), same)


def _common(one: Counter[str], other: Counter[str]) -> float:
    """Return the fraction of the letters of one text that are also letters of the other."""
    letters = {char: count for char, count in one.items() if char.isalpha()}
    common = sum(count for char, count in letters.items() if char in other)
    return common / sum(letters.values()) if letters else 1.0


def _characters(sentences: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for sentence in sentences:
        counts.update(sentence)
    return counts
