"""Initialisers, named after their papers. Each returns a new float32 array drawn on the host.

A weight is (in, out), so fan_in = shape[0] and fan_out = shape[-1]. Variances are per element.
"""

from __future__ import annotations

import math

import numpy as np

from nn.checks import check_generator, check_number, check_size
from tensorlib.arrays.random import Generator, default_generator

__all__ = ["kaiming_normal", "kaiming_uniform", "lecun_normal", "normal", "uniform", "xavier_normal", "xavier_uniform"]


def normal(shape: tuple[int, ...], std: float, generator: Generator | None = None) -> np.ndarray:
    """Return normal numbers of mean 0 and the given standard deviation."""
    check_number("normal", std=std)
    draw = _draw("normal", shape, generator)
    return draw.standard_normal(shape, dtype=np.float32) * np.float32(std)


def uniform(shape: tuple[int, ...], bound: float, generator: Generator | None = None) -> np.ndarray:
    """Return numbers spread evenly over [-bound, bound)."""
    check_number("uniform", bound=bound)
    draw = _draw("uniform", shape, generator)
    return (2 * draw.random(shape, dtype=np.float32) - 1) * np.float32(bound)


def xavier_uniform(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Variance 2 gain^2 / (fan_in + fan_out), uniform (Glorot and Bengio 2010, equation 16)."""
    check_number("xavier_uniform", gain=gain)
    return uniform(shape, gain * math.sqrt(6 / sum(_fans("xavier_uniform", shape))), generator)


def xavier_normal(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Variance 2 gain^2 / (fan_in + fan_out), normal (Glorot and Bengio 2010, equation 12)."""
    check_number("xavier_normal", gain=gain)
    return normal(shape, gain * math.sqrt(2 / sum(_fans("xavier_normal", shape))), generator)


def kaiming_uniform(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 2 / fan_in, uniform: keeps the scale through ReLUs (He et al. 2015, equation 10)."""
    return uniform(shape, math.sqrt(6 / _fans("kaiming_uniform", shape)[0]), generator)


def kaiming_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 2 / fan_in, normal: keeps the scale through ReLUs (He et al. 2015, equation 10)."""
    return normal(shape, math.sqrt(2 / _fans("kaiming_normal", shape)[0]), generator)


def lecun_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Variance 1 / fan_in, normal (LeCun et al. 1998, "Efficient BackProp", section 4.6)."""
    return normal(shape, math.sqrt(1 / _fans("lecun_normal", shape)[0]), generator)


def _fans(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight, after checking that it has both."""
    if not isinstance(shape, tuple | list) or len(shape) < 2:
        raise ValueError(f"{name}: shape must be (in, ..., out), got {shape!r}; a bias starts at zero")
    check_size(name, fan_in=shape[0], fan_out=shape[-1])
    return shape[0], shape[-1]


def _draw(name: str, shape: tuple[int, ...], generator: Generator | None) -> np.random.Generator:
    for n in shape if isinstance(shape, tuple | list) else (shape,):
        check_size(name, least=0, size=n)
    check_generator(name, generator)
    return (default_generator() if generator is None else generator).numpy()
