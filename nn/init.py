"""Initialisers, named after their papers. Each returns a new float32 array drawn on the host.

A weight is (in, out), so fan_in = shape[0] and fan_out = shape[-1]. Variances are per element.
"""

from __future__ import annotations

import math

import numpy as np

from tensorlib.random import Generator, default_generator

__all__ = ["kaiming_normal", "kaiming_uniform", "lecun_normal", "normal", "uniform", "xavier_normal", "xavier_uniform"]


def normal(shape: tuple[int, ...], std: float, generator: Generator | None = None) -> np.ndarray:
    """Return normal numbers of mean 0 and the given standard deviation."""
    draw = (generator or default_generator()).numpy()
    return draw.standard_normal(shape, dtype=np.float32) * np.float32(std)


def uniform(shape: tuple[int, ...], bound: float, generator: Generator | None = None) -> np.ndarray:
    """Return numbers spread evenly over [-bound, bound)."""
    draw = (generator or default_generator()).numpy()
    return (2 * draw.random(shape, dtype=np.float32) - 1) * np.float32(bound)


def xavier_uniform(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Variance 2 gain^2 / (fan_in + fan_out), uniform (Glorot and Bengio 2010, equation 16)."""
    return uniform(shape, gain * math.sqrt(6 / (shape[0] + shape[-1])), generator)


def xavier_normal(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Variance 2 gain^2 / (fan_in + fan_out), normal (Glorot and Bengio 2010, equation 12)."""
    return normal(shape, gain * math.sqrt(2 / (shape[0] + shape[-1])), generator)


def kaiming_uniform(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 2 / fan_in, uniform: keeps the scale through ReLUs (He et al. 2015, equation 10)."""
    return uniform(shape, math.sqrt(6 / shape[0]), generator)


def kaiming_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 2 / fan_in, normal: keeps the scale through ReLUs (He et al. 2015, equation 10)."""
    return normal(shape, math.sqrt(2 / shape[0]), generator)


def lecun_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 1 / fan_in, normal (LeCun et al. 1998, "Efficient BackProp", section 4.6)."""
    return normal(shape, math.sqrt(1 / shape[0]), generator)
