"""The op table: one row per public function of ops/. The tests and ``tensorlib check`` both walk it.

A row says where an op is to be tried, and what NumPy makes of it::

    Row("power", ops.power, np.power, [at((3,), (3,)), at((2, 3), 2), at((0,), (0,))], POSITIVE),

``at`` lists the positional arguments of one sample: a *tuple* is a shape, to be filled from the row's domain and to be
differentiated; anything else (a number, an array of ids, a mask) is handed over as it stands, arrays as Tensors.
Keyword arguments go to the op and to its reference alike. The same seed fills a sample on every run.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import tensorlib as tl
from tensorlib import ops
from tensorlib.backend import Backend
from tensorlib.tensor import Tensor

__all__ = ["ROWS", "Row", "Sample", "at", "function_names"]

Domain = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


# ---- domains: where an op is smooth ------------------------------------------------------------------------------


def REAL(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of both signs and of magnitude 0.3 to 1.5: no kink or pole at zero is near."""
    return np.asarray(rng.uniform(0.3, 1.5, shape) * rng.choice([-1.0, 1.0], shape))


def POSITIVE(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers from 0.4 to 2."""
    return np.asarray(rng.uniform(0.4, 2.0, shape))


def DISTINCT(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers around zero that all differ by at least 0.1: no two tie, and none does within a small step."""
    n = math.prod(shape)
    return np.asarray((rng.permutation(n) - n / 2 + rng.uniform(0.1, 0.9)).reshape(shape) * 0.1)


def BOOLEAN(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random mask."""
    return np.asarray(rng.random(shape) < 0.5)


# ---- rows and samples --------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """The arguments of one call. Of the positional ones, tuples are shapes still to be filled."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    def __str__(self) -> str:
        positional = [f"array{a.shape}" if isinstance(a, np.ndarray) else str(a) for a in self.arguments]
        return ", ".join([*positional, *[f"{k}={_brief(v)}" for k, v in self.keywords.items()]])


def at(*arguments: Any, **keywords: Any) -> Sample:
    """Describe one sample: tuples are shapes, everything else is handed over as it stands."""
    return Sample(arguments, keywords)


def _brief(value: Any) -> str:
    return f"array{value.shape}" if isinstance(value, np.ndarray) else str(value)


@dataclass(frozen=True)
class Row:
    """One op: its public function, what NumPy makes of it, samples, and where it is smooth.

    Attributes:
        name: the public name.
        function: takes Tensors at the places of shapes.
        reference: takes NumPy arrays of float64 instead, and returns what `function` should; None where NumPy has no
            such thing.
        samples: made by `at`.
        domain: fills the shapes; a tuple has one domain for each shape.
        differentiable: False where only the value can be checked.
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
        """Return the op as a function of the sample's arrays alone; the reference, of NumPy arrays, without backend."""
        function: Any = self.reference if backend is None else self.function
        keywords = {k: _handed(v, backend) for k, v in sample.keywords.items()}

        def call(*xs: Any) -> Any:
            filled = iter(xs)
            arguments = [next(filled) if isinstance(a, tuple) else _handed(a, backend) for a in sample.arguments]
            return function(*arguments, **keywords)

        call.__name__ = self.name
        return call


def _handed(value: Any, backend: Backend | None) -> Any:
    """Return a constant argument as the op gets it: arrays as Tensors of the backend, also within an index tuple."""
    if backend is None:
        return value
    if isinstance(value, np.ndarray):
        return Tensor(value, backend=backend)
    return tuple(_handed(v, backend) for v in value) if isinstance(value, tuple) else value


def function_names() -> list[str]:
    """Return the public functions of every file in ops/ that works on Tensors: each of them needs a row."""
    names: list[str] = []
    for module in pkgutil.iter_modules(ops.__path__):
        if module.name not in ("common", "update"):  # updates work on raw arrays, in place, and have no gradient
            names += importlib.import_module(f"tensorlib.ops.{module.name}").__all__
    return sorted(names)


# ---- references that NumPy has no function for -------------------------------------------------------------------


def _softmax(x: np.ndarray, axis: int = -1, visible: Any = True) -> np.ndarray:
    e = np.where(visible, np.exp(x), 0.0)
    total = e.sum(axis=axis, keepdims=True)
    return e / np.where(total == 0, 1, total)


def _logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def _layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def _cross_entropy(
    logits: np.ndarray,
    targets: np.ndarray,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    log_probs = np.log(_softmax(logits))
    counted = targets != ignore_index
    one_hot = np.eye(logits.shape[-1])[np.where(counted, targets, 0)]
    smoothed = (1 - label_smoothing) * one_hot + label_smoothing / logits.shape[-1]
    losses = np.where(counted, -(smoothed * log_probs).sum(-1), 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / max(counted.sum(), 1)}[reduction]


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, visible: Any = True, return_weights: bool = False) -> Any:
    weights = _softmax(q @ np.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -1, visible)
    return (weights @ v, weights) if return_weights else weights @ v


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# ---- the table ---------------------------------------------------------------------------------------------------

_UNARY = [at(()), at((4,)), at((2, 3)), at((1, 1)), at((0, 3)), at((2, 1, 3))]
_BINARY = [
    at((3,), (3,)), at((), ()), at((), (2, 3)), at((2, 1, 3), (4, 1)), at((2, 3), (3,)), at((0, 3), (1, 3)),
    at((1, 1), (1,)), at((2, 3), 2.5), at(-1.5, (2,)), at((2,), np.float64(0.7)), at((2, 1), np.full((1, 3), 0.6)),
]  # fmt: skip
_MASKS = [at((2, 3), (2, 3)), at((2, 3), (3,)), at((), ()), at((0,), (0,)), at((2, 1), (1, 3))]
_COMPARED = [at((3,), (3,)), at((2, 1), (3,)), at((), ()), at((0,), (0,)), at((2, 3), 0.5), at((4,), np.ones(4))]
_REDUCED = [
    at(()), at((2, 3)), at((2, 3), axis=0), at((2, 3), axis=-1, keepdims=True), at((2, 3, 4), axis=(0, -1)),
    at((2, 1, 3), axis=1), at((2, 3), axis=()), at((0, 3), axis=1), at((2, 3), keepdims=True), at((1,), axis=0),
]  # fmt: skip
_EMPTIED = [at((0, 3)), at((0, 3), axis=0), at((2, 0), axis=-1, keepdims=True)]
_TRUTH = [at((2, 3)), at((2, 3), axis=0), at((4,), axis=-1), at((0, 2), axis=0), at((2, 3, 2), axis=(0, 2)), at(())]
_NORMALISED = [
    at((4,)), at((2, 3)), at((2, 3), axis=0), at((2, 3, 4), axis=-2), at((2, 1)), at((0, 3)), at((1, 1, 3), axis=1),
]  # fmt: skip

_SOME = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, True]])
_CAUSAL = np.tril(np.ones((3, 3), bool))
_IDS = np.array([[0, 4, 4], [1, 0, 4]])

ROWS: list[Row] = [
    # arithmetic
    Row("add", tl.add, np.add, _BINARY),
    Row("subtract", tl.subtract, np.subtract, _BINARY),
    Row("multiply", tl.multiply, np.multiply, _BINARY),
    Row("divide", tl.divide, np.divide, _BINARY),
    Row("negative", tl.negative, np.negative, _UNARY),
    Row(
        "power", tl.power, np.power,
        [at((3,), (3,)), at((2, 3), 2), at((2, 3), -1.5), at((3,), 0), at((3,), 1), at(2.5, (2,)), at((2, 1), (3,)),
         at((), ()), at((0,), (0,)), at((2, 3), np.array([2.0, 0.0, -1.0]))],
        POSITIVE,
    ),
    Row("maximum", tl.maximum, np.maximum, _BINARY, DISTINCT),
    Row("minimum", tl.minimum, np.minimum, _BINARY, DISTINCT),
    Row("equal", tl.equal, np.equal, _COMPARED, DISTINCT, differentiable=False),
    Row("not_equal", tl.not_equal, np.not_equal, _COMPARED, DISTINCT, differentiable=False),
    Row("less", tl.less, np.less, _COMPARED, DISTINCT, differentiable=False),
    Row("less_equal", tl.less_equal, np.less_equal, _COMPARED, DISTINCT, differentiable=False),
    Row("greater", tl.greater, np.greater, _COMPARED, DISTINCT, differentiable=False),
    Row("greater_equal", tl.greater_equal, np.greater_equal, _COMPARED, DISTINCT, differentiable=False),
    Row("logical_and", tl.logical_and, np.logical_and, _COMPARED, BOOLEAN, differentiable=False),
    Row("logical_or", tl.logical_or, np.logical_or, _COMPARED, BOOLEAN, differentiable=False),
    Row("logical_not", tl.logical_not, np.logical_not, _UNARY, BOOLEAN, differentiable=False),
    Row("bitwise_and", tl.bitwise_and, np.bitwise_and, _MASKS, BOOLEAN, differentiable=False),
    Row("bitwise_or", tl.bitwise_or, np.bitwise_or, _MASKS, BOOLEAN, differentiable=False),
    Row("invert", tl.invert, np.invert, _UNARY, BOOLEAN, differentiable=False),
    # elementwise
    Row("exp", tl.exp, np.exp, _UNARY),
    Row("log", tl.log, np.log, _UNARY, POSITIVE),
    Row("sqrt", tl.sqrt, np.sqrt, _UNARY, POSITIVE),
    Row("rsqrt", tl.rsqrt, lambda x: 1 / np.sqrt(x), _UNARY, POSITIVE),
    Row("square", tl.square, np.square, _UNARY),
    Row("abs", tl.abs, np.abs, _UNARY),
    Row("sign", tl.sign, np.sign, [*_UNARY, at(np.array([-2.0, 0.0, 3.0]))], differentiable=False),
    Row("tanh", tl.tanh, np.tanh, _UNARY),
    Row("sigmoid", tl.sigmoid, lambda x: 1 / (1 + np.exp(-x)), _UNARY),
    Row("relu", tl.relu, lambda x: np.maximum(x, 0), _UNARY),
    Row("gelu", tl.gelu, _gelu, _UNARY),
    Row("isfinite", tl.isfinite, np.isfinite, [*_UNARY, at(np.array([1.0, np.inf, np.nan]))], differentiable=False),
    # reduce
    Row("sum", tl.sum, np.sum, _REDUCED + _EMPTIED),
    Row("mean", tl.mean, np.mean, _REDUCED),
    Row("var", tl.var, np.var, [*_REDUCED, at((2, 3), axis=1, ddof=1), at((5,), ddof=2)]),
    Row("max", tl.max, np.max, _REDUCED, DISTINCT),
    Row("logsumexp", tl.logsumexp, _logsumexp, _REDUCED + _EMPTIED),
    Row(
        "argmax", tl.argmax, np.argmax,
        [at((4,)), at((2, 3)), at((2, 3), axis=0), at((2, 3), axis=-1), at((1, 3), axis=0), at(np.array([1, 2, 2, 0]))],
        DISTINCT, differentiable=False,
    ),
    Row("any", tl.any, np.any, _TRUTH, BOOLEAN, differentiable=False),
    Row("all", tl.all, np.all, _TRUTH, BOOLEAN, differentiable=False),
    # shape
    Row(
        "reshape", tl.reshape, np.reshape,
        [at((2, 3), shape) for shape in ([3, 2], [-1], [6, 1], [1, 2, -1])] + [at((), [1]), at((0, 3), [3, 0])],
    ),
    Row(
        "transpose", lambda x, axes=(): tl.transpose(x, *axes), lambda x, axes=None: np.transpose(x, axes),
        [at((2, 3)), at((2, 3, 4)), at((2, 3, 4), axes=(1, 2, 0)), at((2, 3, 4), axes=(-1, 0, 1)), at(()), at((0, 2))],
    ),
    Row(
        "swapaxes", tl.swapaxes, np.swapaxes,
        [at((2, 3), 0, 1), at((2, 3, 4), -1, -2), at((2, 3, 4), 0, -1), at((2,), 0, 0), at((0, 1, 2), 1, 2)],
    ),
    Row(
        "expand_dims", tl.expand_dims, np.expand_dims,
        [at((2, 3), 0), at((2, 3), -1), at((2, 3), 1), at((), 0), at((0,), -2)],
    ),
    Row(
        "squeeze", tl.squeeze, np.squeeze,
        [at((1, 2, 1)), at((1, 2, 1), axis=0), at((1, 2, 1), axis=-1), at((1, 1), axis=(0, 1)), at((2,)), at((0, 1))],
    ),
    Row(
        "broadcast_to", lambda x, shape: tl.broadcast_to(x, shape), np.broadcast_to,
        [at((3,), shape=(2, 3)), at((2, 1), shape=(2, 4)), at((), shape=(2, 2)), at((1, 1), shape=(3, 1)),
         at((2,), shape=(2,)), at((1, 2), shape=(0, 2))],
    ),
    Row(
        "concatenate", lambda *xs, axis=0: tl.concatenate(xs, axis), lambda *xs, axis=0: np.concatenate(xs, axis),
        [at((2, 3), (1, 3)), at((2, 3), (2, 1), (2, 2), axis=-1), at((2, 3)), at((0, 2), (3, 2)), at((1,), (0,), (1,)),
         at((1, 2), np.full((1, 2), 0.5), axis=1)],
    ),
    Row(
        "stack", lambda *xs, axis=0: tl.stack(xs, axis), lambda *xs, axis=0: np.stack(xs, axis),
        [at((2, 3), (2, 3)), at((2, 3), (2, 3), axis=-1), at((), ()), at((3,), (3,), (3,), axis=1), at((0,), (0,))],
    ),
    Row(
        "split", tl.split, np.split,
        [at((4, 3), 2), at((2, 6), 3, axis=-1), at((3, 5), [1, 4], axis=1), at((3,), [1, 1, 2]), at((0, 2), 1),
         at((2, 1, 3), [2], axis=2)],
    ),
    Row("astype", lambda x: tl.astype(x, "float64"), lambda x: x, _UNARY),
    Row("copy", tl.copy, np.copy, _UNARY),
    # indexing
    Row(
        "getitem", lambda x, index: tl.getitem(x, index), lambda x, index: x[index],
        [at((4, 3), index=index) for index in (
            0, -1, slice(None, None, 2), slice(None, None, -1), slice(4, None), (1, 2), (..., 0), None, (),
            (slice(None), None, 1), [0, 0, 3], _IDS[:, :2] % 4, (_IDS % 4, _IDS % 3), np.array([], int), np.array(2),
            (slice(1, 3), np.array([2, 0, 2])), (np.array([1, 1]), None, slice(0, 2)),
            np.array([True, False, True, True]), np.zeros((4, 3), bool),
        )] + [at((), index=()), at((), index=None), at((0, 2), index=slice(None))],
    ),
    Row(
        "embedding", tl.embedding, lambda weight, ids: weight[ids],
        [at((5, 3), _IDS), at((5,), _IDS), at((5, 2, 2), _IDS[0]), at((5, 3), np.array(4)),
         at((1, 2), np.zeros(3, int)), at((5, 3), np.zeros((2, 0), int)),
         at((5, 0), _IDS), at((5, 2), _IDS.astype("uint8"))],
    ),
    Row(
        "take_along_axis", tl.take_along_axis, np.take_along_axis,
        [at((2, 5), _IDS, axis=1), at((2, 5), _IDS, axis=-1), at((5, 3), _IDS, axis=0), at((5,), _IDS[0], axis=0),
         at((2, 5), np.zeros((2, 0), int), axis=1), at((1, 5), _IDS, axis=1), at((2, 5), _IDS[:1], axis=1),
         at((2, 2, 5), np.array([[[1], [1]], [[0], [4]]]), axis=2)],
    ),
    Row(
        "where", lambda x, y, condition: tl.where(condition, x, y), lambda x, y, condition: np.where(condition, x, y),
        [at((3, 4), (3, 4), condition=_SOME), at((4,), (3, 1), condition=_SOME), at((3, 4), 0.0, condition=_SOME),
         at(1.5, (4,), condition=_SOME), at((), (), condition=_SOME[0]), at((2,), (2,), condition=True),
         at((0, 2), (1, 2), condition=np.zeros((0, 1), bool))],
    ),
    Row(
        "masked_fill", tl.masked_fill, lambda x, mask, value: np.where(mask, value, x),
        [at((3, 4), _SOME, 0.0), at((4,), _SOME, -2.0), at((2, 3, 4), _SOME, -50.0), at((), _SOME[0], 1.0),
         at((0, 4), np.zeros((1, 4), bool), 1.0)],
    ),
    # linalg
    Row(
        "matmul", tl.matmul, np.matmul,
        [at((2, 3), (3, 4)), at((3,), (3,)), at((3,), (3, 2)), at((2, 3), (3,)), at((2, 2, 3), (3, 4)),
         at((2, 2, 3), (2, 3, 1)), at((2, 1, 2, 3), (3, 3, 2)), at((2, 3), (2, 3, 2)), at((3,), (2, 3, 2)),
         at((2, 2, 3), (3,)), at((1, 1), (1, 1)), at((0, 3), (3, 2)), at((2, 0), (0, 3)), at((2, 3, 0), (0, 2)),
         at((2, 2, 3), (3, 0)), at((0, 2, 3), (3, 2)), at((0, 2, 3), (0, 3, 2)), at((2, 3), np.full((3, 2), 0.5))],
    ),
    # softmax
    Row(
        "softmax", tl.softmax, _softmax,
        [*_NORMALISED, at((3, 4), visible=_SOME), at((2, 3, 4), visible=_SOME), at((3, 4), axis=0, visible=_SOME),
         at((2, 3, 3), visible=_CAUSAL), at((2, 4), visible=_SOME[:1])],
    ),
    Row("log_softmax", tl.log_softmax, lambda x, axis=-1: np.log(_softmax(x, axis)), _NORMALISED),
    # normalize
    Row(
        "layer_norm", tl.layer_norm, _layer_norm,
        [at((2, 4), (4,), (4,)), at((2, 3, 4), (4,), (4,)), at((4,), (4,), (4,)), at((0, 4), (4,), (4,)),
         at((2, 1), (1,), (1,)), at((1, 1, 5), (5,), (5,), eps=0.1)],
    ),
    # losses
    Row(
        "cross_entropy", tl.cross_entropy, _cross_entropy,
        [at((3, 5), _IDS[0]), at((2, 3, 5), _IDS, ignore_index=0), at((2, 3, 5), _IDS, label_smoothing=0.1),
         at((2, 3, 5), _IDS, ignore_index=4, label_smoothing=0.2, reduction="sum"),
         at((3, 5), _IDS[0], reduction="none"), at((2, 3), np.array([7, 7]), ignore_index=7), at((5,), np.array(2)),
         at((0, 3), np.zeros(0, int)), at((2, 1), np.array([0, 0])), at((2, 5), np.array([1, -100]))],
    ),
    # dropout: which elements stay is the generator's affair, so no reference
    Row(
        "dropout", lambda x, p: tl.dropout(x, p, tl.Generator(7)), None,
        [at((3, 4), 0.5), at((7,), 0.1), at((2, 3), 0.0), at((0, 2), 0.5), at((), 0.3)],
    ),
    # attention
    Row(
        "scaled_dot_product_attention", tl.scaled_dot_product_attention, _attention,
        [at((3, 2), (4, 2), (4, 3)), at((2, 3, 2), (2, 4, 2), (2, 4, 2), visible=_SOME),
         at((3, 2), (3, 2), (3, 2), visible=_CAUSAL), at((2, 1, 2), (1, 3, 2), (1, 3, 1), return_weights=True),
         at((0, 2), (4, 2), (4, 2)), at((1, 1, 1, 2), (2, 1, 2), (2, 1, 2))],
    ),
]  # fmt: skip
