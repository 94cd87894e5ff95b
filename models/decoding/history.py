"""The tokens of all targets of a beam search, and those of one target."""

from __future__ import annotations

import numpy as np

__all__ = ["History"]


class History:
    """All tokens so far, each with the number of the one before it: what targets have in common is kept once.

    A token is numbered within its step.
    """

    def __init__(self) -> None:
        self.tokens: list[np.ndarray] = []
        self._log_probs: list[np.ndarray] = []
        self._before: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, before_BN: np.ndarray, tokens_BN: np.ndarray, log_probs_BN: np.ndarray) -> np.ndarray:
        """Add a token after each of those with the numbers `before_BN`; return the numbers of the new ones."""
        self._before.append(before_BN.ravel())
        self.tokens.append(tokens_BN.ravel())
        self._log_probs.append(log_probs_BN.ravel())
        return np.arange(tokens_BN.size).reshape(tokens_BN.shape)

    def targets(self, last: np.ndarray) -> tuple[list[list[int]], list[list[float]]]:
        """Return the ids and log-probabilities of the targets that end in these tokens of the latest step."""
        ids, log_probs = np.empty((len(last), len(self)), np.int64), np.empty((len(last), len(self)))
        for t in reversed(range(len(self) if len(last) else 0)):
            ids[:, t], log_probs[:, t] = self.tokens[t][last], self._log_probs[t][last]
            last = self._before[t][last]
        return ids.tolist(), log_probs.tolist()
