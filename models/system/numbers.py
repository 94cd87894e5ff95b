"""How losses and perplexities are shown: in a few characters, however far a training run has diverged."""

from __future__ import annotations

import math

__all__ = ["shown_loss", "shown_perplexity"]


def shown_loss(loss: float, digits: int = 4) -> str:
    """Return a loss with `digits` decimals, or in scientific notation if it is so large that decimals mean nothing.

    >>> shown_loss(2.5), shown_loss(-612.25, 2), shown_loss(3.2e33), shown_loss(float("inf"))
    ('2.5000', '-612.25', '3.2e+33', 'inf')
    """
    return f"{loss:.{digits}f}" if abs(loss) < 1e4 or not math.isfinite(loss) else f"{loss:.1e}"


def shown_perplexity(perplexity: float, digits: int = 2) -> str:
    """Return a perplexity with `digits` decimals, or ">1e6" if it is higher than any vocabulary is large.

    >>> shown_perplexity(12.5), shown_perplexity(float("inf")), shown_perplexity(float("nan"))
    ('12.50', '>1e6', 'nan')
    """
    return ">1e6" if perplexity > 1e6 else f"{perplexity:.{digits}f}"
