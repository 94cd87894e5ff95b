"""A row of the op table: an op, its NumPy reference, and the samples at which it is tested."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tensorlib.arrays.backend import Backend
from tensorlib.arrays.random import Generator
from tensorlib.ops.dropout import dropout
from tensorlib.tensor import Tensor

__all__ = [
    "ALONG_AXIS",
    "BOOLEAN",
    "CAUSAL",
    "DISTINCT",
    "IDS",
    "POSITIVE",
    "REAL",
    "UNARY",
    "VISIBLE",
    "Row",
    "Sample",
    "dropout_mask",
    "sample",
]  # fmt: skip

Domain = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


# ---- domains in which an op is smooth ----------------------------------------------------------------------------


def REAL(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of both signs and of magnitude 0.3 to 1.5, away from kinks and poles at 0."""
    return np.asarray(rng.uniform(0.3, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def POSITIVE(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers from 0.4 to 2."""
    return np.asarray(rng.uniform(0.4, 2.0, shape))


def DISTINCT(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers around 0 that all differ by at least 0.1, so that a small step does not make two of them equal."""
    n = math.prod(shape)
    return np.asarray((rng.permutation(n) - n / 2 + rng.uniform(0.1, 0.9)).reshape(shape) * 0.1)


def BOOLEAN(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random mask."""
    return np.asarray(rng.random(shape) < 0.5)


# ---- rows and samples --------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """The arguments of one call. Tuples among the positional ones are shapes, which the row fills."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __str__(self) -> str:
        positional = [f"array{a.shape}" if isinstance(a, np.ndarray) else str(a) for a in self.arguments]
        return ", ".join([*positional, *[f"{k}={_brief(v)}" for k, v in self.keywords.items()]])


def sample(*arguments: Any, **keywords: Any) -> Sample:
    """Describe one call of an op: positional tuples are shapes; all else is passed unchanged, arrays as Tensors."""
    return Sample(arguments, keywords)


def _brief(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else str(value)


@dataclass(frozen=True)
class Row:
    """One op: its public function, its NumPy reference, its samples, and the domain in which it is smooth.

    Attributes:
        name: the public name.
        function: the op; it gets a Tensor in place of each shape.
        reference: returns the expected values; it gets a NumPy array in place of each shape. None if there is none.
        samples: the calls to test, each described by `sample`.
        domain: fills the shapes; if it is a tuple, each shape has its own domain.
        differentiable: False if only the value can be checked.
    """

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any] | None
    samples: Sequence[Sample]
    domain: Domain | tuple[Domain, ...] = REAL
    differentiable: bool = True

    def arrays(self, sample: Sample, dtype: Any = np.float64) -> list[np.ndarray]:
        """Return arrays for the shapes of the sample, the same on every call."""
        rng = np.random.default_rng(zlib.crc32(f"{self.name} {sample}".encode()))
        shapes = [a for a in sample.arguments if isinstance(a, tuple)]
        domains = self.domain if isinstance(self.domain, tuple) else (self.domain,) * len(shapes)
        filled = [domain(rng, shape) for domain, shape in zip(domains, shapes, strict=True)]
        return [a.astype(dtype) if a.dtype.kind == "f" else a for a in filled]

    def bound(self, sample: Sample, backend: Backend | None) -> Callable[..., Any]:
        """Return the op as a function of the sample's arrays alone, or its reference if `backend` is None."""
        function: Any = self.reference if backend is None else self.function
        keywords = {k: _as_argument(v, backend) for k, v in sample.keywords.items()}

        def call(*xs: Any) -> Any:
            filled = iter(xs)
            arguments = [next(filled) if isinstance(a, tuple) else _as_argument(a, backend) for a in sample.arguments]
            return function(*arguments, **keywords)

        call.__name__ = self.name
        call.__signature__ = self._signature(sample)  # type: ignore[attr-defined]  # so that gradcheck can name inputs
        return call

    def _signature(self, sample: Sample) -> inspect.Signature:
        """Return a signature with the op's names for the arguments that are arrays in this sample."""
        names = list(inspect.signature(self.function).parameters.values())
        several = [p for p in names if p.kind is p.VAR_POSITIONAL]
        if several:  # concatenate(*xs): its inputs have no names
            return inspect.Signature(several[:1])
        positions = [i for i, a in enumerate(sample.arguments) if isinstance(a, tuple)]
        only = inspect.Parameter.POSITIONAL_ONLY
        return inspect.Signature([inspect.Parameter(names[i].name, only) for i in positions])


def _as_argument(value: Any, backend: Backend | None) -> Any:
    """Return a constant argument; with a backend, arrays become Tensors on it, even inside an index tuple."""
    if backend is None:
        return value
    if isinstance(value, np.ndarray):
        return Tensor(value, backend=backend)
    return tuple(_as_argument(v, backend) for v in value) if isinstance(value, tuple) else value


def dropout_mask(shape: tuple[int, ...], p: float) -> np.ndarray:
    """Return the mask by which an op with dropout `p` and ``tl.Generator(7)`` multiplies."""
    return dropout(np.ones(shape), p, Generator(7)).numpy()


# ---- samples and constants that several families share ----

UNARY = [sample(()), sample((4,)), sample((2, 3)), sample((1, 1)), sample((0, 3)), sample((2, 1, 3))]
IDS = np.array([[0, 4, 4], [1, 0, 4]])
VISIBLE = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, True]])
ALONG_AXIS = [
    sample((4,)), sample((2, 3)), sample((2, 3), axis=0), sample((2, 3, 4), axis=-2), sample((2, 1)), sample((0, 3)),
    sample((1, 1, 3), axis=1),
]  # fmt: skip
CAUSAL = np.tril(np.ones((3, 3), bool))
