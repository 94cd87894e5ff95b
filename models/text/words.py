"""Words of plain text, by a rule of Unicode categories, and the vocabulary that they form."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST", "Vocabulary", "words_of"]

LONGEST = 1000  # words of a sentence; a longer line is cut, as by word2vec, because a line may be a whole text


class _Separated(dict[int, str]):
    """What `str.translate` puts for each character: itself if it is part of a word, otherwise a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = char if unicodedata.category(char)[0] in "LMN" else "'" if char in "'’" else " "
        return self[code]


_SEPARATED = _Separated()


def words_of(line: str, lower: bool = True) -> list[str]:
    """Return the words of a line: runs of letters, marks and digits (Unicode categories L, M, N).

    Apostrophes belong to a word if they are inside it; every other character separates words. The text is brought to
    the composed form NFC first, so that é is one letter however it was typed.

    >>> words_of("The dogs' leash -- isn't it blue-green? 'Tis 2 m.")
    ['the', 'dogs', 'leash', "isn't", 'it', 'blue', 'green', 'tis', '2', 'm']
    >>> words_of("Ein Café in Köln", lower=False)
    ['Ein', 'Café', 'in', 'Köln']
    """
    line = unicodedata.normalize("NFC", line.lower() if lower else line)
    words = (word.strip("'") for word in line.translate(_SEPARATED).split())
    return [word for word in words if word]


class Vocabulary:
    """The words that occur at least `min_count` times, the most frequent first; equal counts in the order of the words.

    >>> text = [["a", "cat", "saw", "a", "dog"], ["a", "dog", "ran"]]
    >>> vocabulary = Vocabulary.of(text, min_count=2)
    >>> vocabulary.words, vocabulary.counts_V
    (['a', 'dog'], array([3, 2]))
    >>> vocabulary.encode(text)  # ids of all sentences, and the length of each; other words are left out
    (array([0, 0, 1, 0, 1], dtype=int32), array([3, 2]))
    """

    def __init__(self, words: Sequence[str], counts: Sequence[int] | NDArray[np.int64]) -> None:
        self.words = list(words)
        self.counts_V = np.array(counts, dtype=np.int64)
        self.ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], min_count: int = 1) -> Vocabulary:
        """Return the vocabulary of a text."""
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update(sentence)
        kept = sorted(((word, n) for word, n in counts.items() if n >= min_count), key=lambda pair: (-pair[1], pair[0]))
        return cls([word for word, _ in kept], [n for _, n in kept])

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, sentences: Iterable[Sequence[str]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the ids of all sentences, one after the other, and the lengths of the sentences that are not empty."""
        encoded = [ids for sentence in sentences for ids in self._pieces(sentence)]
        tokens_T = np.concatenate([np.zeros(0, np.int32), *encoded])
        return tokens_T, np.array([len(ids) for ids in encoded], dtype=np.int64)

    def _pieces(self, sentence: Sequence[str]) -> Iterator[NDArray[np.int32]]:
        ids = [self.ids[word] for word in sentence if word in self.ids]
        for start in range(0, len(ids), LONGEST):
            yield np.array(ids[start : start + LONGEST], dtype=np.int32)
