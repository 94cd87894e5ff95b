"""Rows of the op table: losses between numbers, and between probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tensorlib as tl
from tensorlib.optable.row import POSITIVE, Row, sample

__all__ = ["ROWS"]


def NEAR(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers near -0.5 and 0.5."""
    return np.asarray(rng.choice([-0.5, 0.5], shape) + rng.uniform(-0.1, 0.1, shape))


def FAR(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers near -3, 0 and 3, which differ from those of NEAR by about 0.5 or by more than 2."""
    return np.asarray(rng.choice([-3.0, 0.0, 3.0], shape) + rng.uniform(-0.1, 0.1, shape))


def _reduced(terms: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """Return the loss with these terms, adding the argument `reduction` that all these losses have."""

    def loss(*arguments: Any, reduction: str = "mean", **keywords: Any) -> Any:
        found = terms(*arguments, **keywords)
        if reduction == "batchmean":
            return found.sum() / max(len(found), 1)
        if reduction == "none":
            return found
        return found.sum() if reduction == "sum" else found.mean()

    return loss


@_reduced
def _huber(x: np.ndarray, targets: np.ndarray, delta: float = 1.0) -> np.ndarray:
    error = np.abs(x - targets)
    return np.where(error <= delta, error**2 / 2, delta * (error - delta / 2))


@_reduced
def _binary(logits: np.ndarray, targets: np.ndarray, pos_weight: Any = 1.0) -> np.ndarray:
    p = 1 / (1 + np.exp(-logits))
    return -(pos_weight * targets * np.log(p) + (1 - targets) * np.log(1 - p))


@_reduced
def _kl_div(log_probs: np.ndarray, targets: np.ndarray, log_target: bool = False) -> np.ndarray:
    log_p = targets if log_target else np.log(np.where(targets == 0, 1, targets))
    p = np.exp(targets) if log_target else targets
    return p * (log_p - log_probs)


PAIRS = [
    sample((2, 3), (2, 3)), sample((4,), (4,), reduction="none"), sample((), ()),
    sample((2, 1, 3), (2, 1, 3), reduction="sum"),
    sample((0, 3), (0, 3), reduction="sum"),
]  # fmt: skip

ROWS: list[Row] = [
    Row(
        "mse_loss", tl.mse_loss, _reduced(lambda x, targets: (x - targets) ** 2),
        [*PAIRS, sample((2, 2), np.array([[2.4, -2.0], [0.0, 2.1]]))],
    ),
    Row("l1_loss", tl.l1_loss, _reduced(lambda x, targets: np.abs(x - targets)), PAIRS, (NEAR, FAR)),
    Row(
        "huber_loss", tl.huber_loss, _huber, [*PAIRS, sample((3, 2), (3, 2), delta=0.1),
        sample((3,), (3,), 9.0)], (NEAR, FAR),
    ),
    Row(
        "binary_cross_entropy_with_logits", tl.binary_cross_entropy_with_logits, _binary,
        [*PAIRS, sample((2, 3), (2, 3), (3,)), sample((2, 3), np.eye(3)[:2], 2.5),
         sample((2,), (2,), np.full((1,), 0.5))],
    ),
    Row(
        "kl_div", tl.kl_div, _kl_div,
        [*PAIRS, sample((2, 3), (2, 3), reduction="batchmean"), sample((2, 3), np.eye(3)[:2], reduction="batchmean"),
         sample((2, 3), (2, 3), log_target=True, reduction="none")],
        POSITIVE,
    ),
]  # fmt: skip
