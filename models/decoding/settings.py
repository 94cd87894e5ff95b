"""How translations are sought: the settings, and the way of decoding that they choose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models.decoding.beam import beam_search
from models.decoding.hypothesis import Hypothesis, default_limit
from models.decoding.token_by_token import Draw, sample
from models.system.errors import UserError
from models.system.limits import LARGEST

__all__ = ["Search"]


@dataclass(frozen=True)
class Search:
    """Beam search, or sampling. None stands for the default in brackets, so that what contradicts can be told."""

    beam: int | None = None
    """How many targets of a sentence are kept open; 1 is greedy. [4]"""
    n_best: int = 1
    """How many translations of each sentence, the best first; above 1, LINE and SCORE stand before each. [1]"""
    length_penalty: float = 0.6
    """Alpha of Wu et al. 2016: score = log P / ((5 + length) / 6)^alpha; more makes it prefer longer ones. [0.6]"""
    sample: bool = False
    """Draw the tokens instead of seeking the likeliest."""
    temperature: float | None = None
    """With --sample: logits are divided by it; below 1 likely tokens are drawn more often, above 1 less. [1]"""
    top_k: int | None = None
    """With --sample: draw from the k likeliest tokens; 0: from all. [0]"""
    top_p: float | None = None
    """With --sample: draw from the fewest tokens that together have this probability. [1]"""
    seed: int | None = None
    """With --sample: another number draws other translations, the same number the same ones. [0]"""
    min_length: int = 0
    """Fewest subwords of a translation. [0]"""
    max_length: int = 0
    """Most subwords of a translation, its end included; 0: twice the source's and 20. [0]"""

    def check(self) -> None:
        """Raise `UserError` for the first setting that cannot be, or that another one contradicts."""
        for problem in (*self._out_of_range(), *self._contradictions()):
            raise UserError(problem)

    def _out_of_range(self) -> Iterator[str]:
        for name in ("beam", "n_best", "top_k", "seed", "min_length", "max_length"):
            value, least = getattr(self, name), 1 if name in ("beam", "n_best") else 0
            if value is not None and not least <= value <= LARGEST:
                yield f"--{name.replace('_', '-')} must lie in [{least}, {LARGEST}], got {value}"
        if not -10 <= self.length_penalty <= 10:
            yield f"--length-penalty must lie in [-10, 10], got {self.length_penalty}"
        if not 0 < self._temperature < math.inf:
            yield f"--temperature must be a finite number above 0, got {self.temperature}; a very small one is greedy"
        if not 0 < self._top_p <= 1:
            yield f"--top-p must lie in (0, 1], got {self.top_p}"
        if 0 < self.max_length < self.min_length:
            yield f"--min-length must be at most --max-length, got {self.min_length} and {self.max_length}"

    def _contradictions(self) -> Iterator[str]:
        if self.sample and self.beam is not None:
            yield f"--sample draws one translation and keeps no beam, got --beam {self.beam} too; leave one of them out"
        if self.sample and self.n_best > 1:
            yield f"--sample draws one translation, got --n-best {self.n_best} too; draw again with another --seed"
        if not self.sample:
            for name in ("temperature", "top_k", "top_p", "seed"):
                if (value := getattr(self, name)) is not None:
                    yield f"--{name.replace('_', '-')} {value} needs --sample, without which nothing is drawn; add it"
            if self.n_best > self.rows:
                yield f"--n-best must be at most --beam, got {self.n_best} and {self.rows}; raise --beam"

    @property
    def rows(self) -> int:
        """How many targets of a sentence are decoded side by side."""
        return 1 if self.sample else 4 if self.beam is None else self.beam

    def limit(self, source: Sequence[int], most: int) -> int:
        """Return the greatest length of this source's target, in a model that takes targets up to `most`."""
        return min(self.max_length or default_limit(source, self.min_length), most)

    def run(
        self, model: Any, sources: Sequence[Sequence[int]], limits: Sequence[int], draws: Sequence[Draw]
    ) -> list[list[Hypothesis]]:
        """Return for each source its targets, best first; `limits` and `draws` hold one for every source."""
        lengths = {"min_length": self.min_length, "max_length": limits, "length_penalty": self.length_penalty}
        if not self.sample:
            return beam_search(model, sources, self.rows, n_best=self.n_best, **lengths)
        drawn = sample(model, sources, self._temperature, self.top_k or 0, self._top_p, draws=draws, **lengths)
        return [[hypothesis] for hypothesis in drawn]

    @property
    def _temperature(self) -> float:
        return 1.0 if self.temperature is None else self.temperature

    @property
    def _top_p(self) -> float:
        return 1.0 if self.top_p is None else self.top_p
