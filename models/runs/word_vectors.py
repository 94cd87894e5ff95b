"""Looking up words: the nearest by cosine, and analogies."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.runs.vector_files import TRAINING, VECTORS, read_state, read_words, require_vectors
from models.system.errors import UserError
from models.system.terminal import command
from tensorlib.messages import shown

__all__ = ["WordVectors"]

Floats = NDArray[np.float32]


class WordVectors:
    """Words and their vectors.

    words: V different words.
    vectors_VD: the vector of each word, (V, D), finite numbers.

    >>> vectors = models.WordVectors(["king", "queen", "man", "woman"], [[1, 1], [1, -1], [0, 1], [0, -1]])
    >>> vectors.vector("queen")
    array([ 1., -1.], dtype=float32)
    >>> [(word, round(cosine, 2)) for word, cosine in vectors.near("man", count=2)]
    [('king', 0.71), ('queen', -0.71)]
    >>> vectors.analogy("man", "king", "woman", count=1)[0][0]  # king - man + woman
    'queen'

    Raises ValueError for another number of vectors than words, a word that is there twice, or NaN.
    """

    def __init__(self, words: list[str], vectors_VD: Any) -> None:
        self.words, self.vectors_VD = words, np.asarray(vectors_VD, dtype=np.float32)
        self._ids = {word: i for i, word in enumerate(words)}
        if self.vectors_VD.ndim != 2 or len(self.vectors_VD) != len(words):
            raise ValueError(
                f"WordVectors: an array (V, D) is required, a vector for each of {len(words)} words; got shape "
                f"{self.vectors_VD.shape}"
            )
        if len(self._ids) != len(words):
            twice = next(word for i, word in enumerate(words) if self._ids[word] != i)
            raise ValueError(f"WordVectors: different words are required; {shown(twice)} is there twice; remove one")
        if not np.isfinite(self.vectors_VD).all():
            word = words[int(np.flatnonzero(~np.isfinite(self.vectors_VD).all(axis=1))[0])]
            raise ValueError(f"WordVectors: finite vectors are required; that of {shown(word)} is not; correct it")
        norms_V1 = np.linalg.norm(self.vectors_VD, axis=1, keepdims=True)
        self._unit_VD = self.vectors_VD / np.where(norms_V1 > 0, norms_V1, 1)

    @classmethod
    def load(cls, run: str | Path) -> WordVectors:
        """Return the vectors in a directory that `tensorlib embed` wrote. Errors: `UserError` naming the file."""
        path = Path(run)
        require_vectors(path, "vectors")
        if not (path / VECTORS).exists() and (path / TRAINING).exists():
            raise UserError(
                f"vectors {path}: a run that has ended is required; this one was stopped; resume it with "
                f"`{command()} embed --resume --out {path}`"
            )
        state = read_state(path / VECTORS)
        return cls(read_words(path, len(state.model.counts_V)), state.model.inputs_VD)

    def vector(self, word: str) -> Floats:
        """Return a copy of a word's vector, (D,). Errors: `UserError` with similar words for an unknown one."""
        return self.vectors_VD[self._id(word)].copy()

    def near(self, word: str, count: int = 10) -> list[tuple[str, float]]:
        """Return the words whose vectors have the largest cosine with the word's, and these cosines.

        cos(v, w) = <v, w> / (|v| |w|)
        """
        number = self._id(word)
        return self._best(self._unit_VD[number], {number}, count)

    def analogy(self, a: str, b: str, c: str, count: int = 10) -> list[tuple[str, float]]:
        """Return the words d for which a is to b as c is to d: the cosines of d with b - a + c are the largest.

        The sum is of vectors of length 1 (3CosAdd: Mikolov, Yih and Zweig 2013; Levy and Goldberg 2014b); a, b, c
        are left out.
        """
        numbers = [self._id(word) for word in (a, b, c)]
        unit_a, unit_b, unit_c = self._unit_VD[numbers]
        target_D = unit_b - unit_a + unit_c
        return self._best(target_D / max(float(np.linalg.norm(target_D)), 1e-12), {*numbers}, count)

    def _best(self, unit_D: Floats, left_out: set[int], count: int) -> list[tuple[str, float]]:
        cosines_V = self._unit_VD @ unit_D
        order = np.argsort(-cosines_V, kind="stable")[: count + len(left_out)].tolist()
        return [(self.words[i], float(cosines_V[i])) for i in order if i not in left_out][:count]

    def _id(self, word: str) -> int:
        if (found := self._ids.get(word)) is None:
            near = difflib.get_close_matches(word, self.words, 3, 0.7)
            if word.lower() in self._ids:
                near = [word.lower()]
            remedy = f"did you mean {' or '.join(near)}?" if near else f"words.txt has the {len(self.words):,} words"
            raise UserError(f"vectors: a word of the vocabulary is required; {shown(word)} is unknown; {remedy}")
        return found
