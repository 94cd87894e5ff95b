"""How much text there is: what the defaults of a training run follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from models.text.lines import Pair

__all__ = ["StreamSize", "TextSize", "measure", "measure_stream", "utf8_length"]


@dataclass(frozen=True)
class TextSize:
    """The size of a parallel text. The default is a text of the size that most of our figures were measured on."""

    pairs: int = 29_000
    characters: tuple[int, int] = (100, 100)  # number of different characters of the source and of the target
    same_letters: bool = True  # whether most letters of each text also occur in the other
    # (maximum of positions, or else of sentences, in a batch) -> batches in an epoch, once subwords are learned
    batches: Callable[[int, int], int] | None = None


@dataclass(frozen=True)
class StreamSize:
    """The size of a text for a language model. The default is the size of a long book."""

    bytes: int = 4_000_000  # in UTF-8, line ends included
    characters: int = 100  # number of different characters
    batches: Callable[[int, int], int] | None = None  # as in `TextSize`


def measure_stream(lines: Sequence[str]) -> StreamSize:
    """Return the size of these lines.

    >>> measure_stream(["a cat", "eine Kätzin"])
    StreamSize(bytes=19, characters=11, batches=None)
    """
    return StreamSize(utf8_length(lines), len(_characters(lines)))


def utf8_length(lines: Iterable[str]) -> int:
    """Return the number of bytes of these lines in UTF-8, with a newline after each."""
    return sum(len(line.encode("utf-8", "surrogatepass")) + 1 for line in lines)


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
