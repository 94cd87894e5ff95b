"""The settings that select and configure a decoding method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from models.decoding.hypothesis import default_limit
from models.system.errors import UserError
from models.system.limits import LARGEST

__all__ = ["DEFAULT_BEAM", "DEFAULT_LENGTH_PENALTY", "UNSET", "Search"]

DEFAULT_BEAM = 4
DEFAULT_LENGTH_PENALTY = 0.6
UNSET = {"beam": DEFAULT_BEAM, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 0}
"""The values of the settings that are None unless the user gives them, so that contradictions can be detected."""


@dataclass(frozen=True)
class Search:
    """The settings of beam search or sampling. `--help` prints the text beside each type, with the default."""

    beam: Annotated[int | None, "Number of targets of a sentence that are kept open; 1 is greedy decoding."] = None
    n_best: Annotated[
        int, "Number of different translations of each sentence, best first; if above 1, LINE and SCORE precede each."
    ] = 1
    length_penalty: Annotated[
        float,
        "Alpha of Wu et al. 2016: score = log P / ((5 + length) / 6)^alpha; larger values prefer longer translations.",
    ] = DEFAULT_LENGTH_PENALTY
    sample: Annotated[bool, "Draw the tokens at random instead of searching for the likeliest."] = False
    temperature: Annotated[
        float | None, "With --sample: divides the logits. Below 1, likely tokens are drawn more often; above 1, less."
    ] = None
    top_k: Annotated[int | None, "With --sample: draw from the k likeliest tokens; 0 means all tokens."] = None
    top_p: Annotated[
        float | None, "With --sample: draw from the fewest tokens that together have at least this probability."
    ] = None
    seed: Annotated[
        int | None, "With --sample: different seeds draw different translations, equal seeds the same ones."
    ] = None
    min_length: Annotated[int, "Minimum number of subwords of a translation."] = 0
    max_length: Annotated[
        int, "Maximum number of subwords of a translation, its end included; 0 means 20 more than twice the source's."
    ] = 0

    def check(self) -> None:
        """Raise `UserError` for the first setting that is impossible or contradicts another."""
        for problem in (*self._out_of_range(), *self._contradictions()):
            raise UserError(problem)

    def _out_of_range(self) -> Iterator[str]:
        for name in ("beam", "n_best", "top_k", "seed", "min_length", "max_length"):
            value, least = getattr(self, name), 1 if name in ("beam", "n_best") else 0
            if value is not None and not least <= value <= LARGEST:
                limit = f"at least {least}" if value < least else f"at most {LARGEST}"
                yield f"--{name.replace('_', '-')} must be {limit}, got {value}"
        if not -10 <= self.length_penalty <= 10:
            yield f"--length-penalty must lie in [-10, 10], got {self.length_penalty}"
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            given = f"got {self.temperature}; a very small temperature is greedy"
            yield f"--temperature must be a finite number above 0, {given}"
        if self.top_p is not None and not 0 < self.top_p <= 1:
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

    def effective(self, name: str) -> Any:
        """Return a setting, or its default if it is None."""
        value = getattr(self, name)
        return UNSET[name] if value is None else value

    @property
    def rows(self) -> int:
        """The number of targets of a sentence that are decoded at the same time."""
        if self.sample:
            return 1
        return int(self.effective("beam"))

    def limit(self, source: Sequence[int], longest: int) -> int:
        """Return the maximum length of this source's target, for a model whose targets have at most `longest` ids."""
        return min(self.max_length or default_limit(source, self.min_length), longest)
