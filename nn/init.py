"""Initializers, named after their papers. Each returns a new float32 array on the host.

A weight has shape (in, ..., out), so fan_in = shape[0] and fan_out = shape[-1]. Variances are those of each element.
All raise ValueError for a negative size or scale; those that use fans also do so for a shape with fewer than two axes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nn.checks import check_generator, check_number, check_size
from tensorlib.arrays.random import Generator, default_generator
from tensorlib.messages import unknown_name

__all__ = ["kaiming_normal", "kaiming_uniform", "lecun_normal", "normal", "uniform", "xavier_normal", "xavier_uniform"]


def normal(shape: tuple[int, ...], std: float, generator: Generator | None = None) -> np.ndarray:
    """Return numbers distributed normally with mean 0 and standard deviation `std`.

    >>> nn.init.normal((300, 200), std=0.5, generator=tl.Generator(0)).std().round(1)
    np.float32(0.5)
    """
    check_number("normal", std=std)
    rng = _host_generator("normal", shape, generator)
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(std)


def uniform(shape: tuple[int, ...], bound: float, generator: Generator | None = None) -> np.ndarray:
    """Return numbers distributed uniformly over [-bound, bound).

    >>> w = nn.init.uniform((300, 200), bound=0.5)
    >>> w.min().round(2), w.max().round(2)
    (np.float32(-0.5), np.float32(0.5))
    """
    check_number("uniform", bound=bound)
    rng = _host_generator("uniform", shape, generator)
    return (2 * rng.random(shape, dtype=np.float32) - 1) * np.float32(bound)


def xavier_uniform(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Return uniform numbers of variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 16).

    >>> (nn.init.xavier_uniform((300, 200), tl.Generator(0)).var() * (300 + 200) / 2).round(1)
    np.float32(1.0)
    """
    check_number("xavier_uniform", gain=gain)
    return uniform(shape, gain * math.sqrt(6 / sum(_fans("xavier_uniform", shape))), generator)


def xavier_normal(shape: tuple[int, ...], generator: Generator | None = None, gain: float = 1.0) -> np.ndarray:
    """Return normal numbers of variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 12).

    >>> (nn.init.xavier_normal((300, 200), tl.Generator(0)).var() * (300 + 200) / 2).round(1)
    np.float32(1.0)
    """
    check_number("xavier_normal", gain=gain)
    return normal(shape, gain * math.sqrt(2 / sum(_fans("xavier_normal", shape))), generator)


def kaiming_uniform(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Return uniform numbers of variance 2 / fan_in, which keeps the scale through ReLUs (He et al. 2015, equation 10).

    >>> (nn.init.kaiming_uniform((300, 200), tl.Generator(0)).var() * 300 / 2).round(1)
    np.float32(1.0)
    """
    return uniform(shape, math.sqrt(6 / _fans("kaiming_uniform", shape)[0]), generator)


def kaiming_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Return normal numbers of variance 2 / fan_in, which keeps the scale through ReLUs (He et al. 2015, equation 10).

    >>> (nn.init.kaiming_normal((300, 200), tl.Generator(0)).var() * 300 / 2).round(1)
    np.float32(1.0)
    """
    return normal(shape, math.sqrt(2 / _fans("kaiming_normal", shape)[0]), generator)


def lecun_normal(shape: tuple[int, ...], generator: Generator | None = None) -> np.ndarray:
    """Return normal numbers of variance 1 / fan_in (LeCun et al. 1998, "Efficient BackProp", section 4.6).

    >>> (nn.init.lecun_normal((300, 200), tl.Generator(0)).var() * 300).round(1)
    np.float32(1.0)
    """
    return normal(shape, math.sqrt(1 / _fans("lecun_normal", shape)[0]), generator)


def _fans(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight; raise ValueError for a shape that lacks them."""
    if not isinstance(shape, tuple | list) or len(shape) < 2:
        raise ValueError(f"{name}: shape must be (in, ..., out), got {shape!r}; a bias starts at zero")
    check_size(name, fan_in=shape[0], fan_out=shape[-1])
    return shape[0], shape[-1]


def _host_generator(name: str, shape: tuple[int, ...], generator: Generator | None) -> np.random.Generator:
    """Check the arguments, and return the NumPy generator of `generator`, or of the default generator."""
    for size in shape if isinstance(shape, tuple | list) else (shape,):
        check_size(name, least=0, size=size)
    check_generator(name, generator)
    return (default_generator() if generator is None else generator).numpy()


_PYTORCH_NAMES = {  # from PyTorch's name to what to write instead
    "zeros_": "w.replace(numpy.zeros(w.shape, w.dtype))", "ones_": "w.replace(numpy.ones(w.shape, w.dtype))",
    "constant_": "w.replace(numpy.full(w.shape, value, w.dtype))",
    "trunc_normal_": "w.replace(init.normal(w.shape, std))",
    "eye_": "w.replace(numpy.eye(*w.shape, dtype=w.dtype))", "calculate_gain": "a number: 2**0.5 for relu",
    "orthogonal_": "w.replace(numpy.linalg.qr(init.normal(w.shape, 1.0))[0]), or, for a wide w, "
    "w.replace(numpy.linalg.qr(init.normal(w.shape[::-1], 1.0))[0].T)",
    **{f"{name}_": f"w.replace(init.{name}(w.shape, ...)), or nn.Parameter(init.{name}(...))" for name in __all__},
}  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Raise AttributeError; if `name` is PyTorch's, the message gives its equivalent here."""
        raise AttributeError(unknown_name("nn.init", name, __all__, _PYTORCH_NAMES))
