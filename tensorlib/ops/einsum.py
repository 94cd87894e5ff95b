"""Sums of products in Einstein notation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensorlib.ops.arguments import as_tensors, at_least_float32
from tensorlib.ops.arithmetic import multiply
from tensorlib.ops.linalg import diagonal, matmul
from tensorlib.ops.reduce import sum
from tensorlib.ops.shape import reshape, squeeze, transpose

if TYPE_CHECKING:
    from tensorlib.engine.value import TensorLike
    from tensorlib.tensor import Tensor

__all__ = ["einsum"]


@at_least_float32  # a product of several operands may exceed 65504 on the way
def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Return the sum of products that `subscripts` describes, like numpy.einsum.

    Every axis of an operand has a letter. Axes with the same letter are indexed together; letters that are missing from
    the output (after "->") are summed over::

        einsum("ij,jk->ik", x, y)        # the matrix product
        einsum("bhtk,bhsk->bhts", q, k)  # the scores of attention
        einsum("ii", x)                  # the trace: without "->", the letters that occur once remain, sorted
        einsum("...ij->...ji", x)        # "..." stands for any further axes, which broadcast

    Raises ValueError if the subscripts are malformed or do not match the shapes.

    >>> tl.einsum("ij,j->i", [[1.0, 2.0], [3.0, 4.0]], [1.0, 10.0])
    Tensor([21. 43.], shape=(2,), dtype=float32)

    Composed of other ops, whose gradients give its own: a repeated letter becomes a diagonal, a letter of one operand
    alone, if not in the output, is summed over, and then operands are joined from left to right, by (batched) products.
    For z = einsum("ij,jk->ik", x, y)  =>  dx = einsum("ik,jk->ij", dz, y), dy = einsum("ij,ik->jk", x, dz).
    """
    if not isinstance(subscripts, str):
        raise TypeError(f'einsum: subscripts must come first, as in "ij,jk->ik", got {type(subscripts).__name__}')
    xs = as_tensors(operands)
    shapes = [x.shape for x in xs]
    terms, output = _parsed(subscripts, shapes)
    sizes = _sizes(subscripts, terms, shapes)
    x, labels = _distinct(xs[0], terms[0], sizes)
    for i, (y, term) in enumerate(zip(xs[1:], terms[1:], strict=True), start=1):
        wanted = set(output).union(*terms[i + 1 :])
        y, term = _distinct(y, term, sizes)
        x, labels = _summed(x, labels, wanted.union(term))
        y, term = _summed(y, term, wanted.union(labels))
        x, labels = _joined(x, labels, y, term, wanted)
    x, labels = _summed(x, labels, set(output))
    return transpose(x, [labels.index(label) for label in output])


# ---- reading the subscripts --------------------------------------------------------------------------------------
# A label is a letter or, for an axis within "...", its number counted from the right, as in "...-1".


def _parsed(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[list[str]], list[str]]:
    """Return the labels of the axes of each operand, and those of the output."""
    left, arrow, right = "".join(subscripts.split()).partition("->")
    inputs = left.split(",")
    if len(inputs) != len(shapes):
        raise ValueError(f"einsum: {subscripts!r} needs {len(inputs)} operands, got {len(shapes)}")
    for letter in [letter for term in [*inputs, right] for letter in term.replace("...", "", 1)]:
        if not (letter.isascii() and letter.isalpha()):
            raise ValueError(f"einsum: subscripts are letters, ',', '->' and '...', got {letter!r} in {subscripts!r}")
    terms = []
    for i, (term, shape) in enumerate(zip(inputs, shapes, strict=True)):
        further = len(shape) - len(term.replace("...", "", 1))
        if further < 0 or (further and "..." not in term):
            raise ValueError(
                f"einsum: {term!r} must have a letter for every axis, or '...', but operand {i} has shape {shape}"
            )
        terms.append(_labels(term, further))
    known = [label for term in terms for label in term]
    further = max(len([label for label in term if label[0] == "."]) for term in terms)
    if not arrow:
        once = sorted(label for label in known if label[0] != "." and known.count(label) == 1)
        return terms, _labels("...", further) + once
    if further and "..." not in right:
        raise ValueError(
            f"einsum: the output must contain '...' as the operands do, got {right!r}; use .sum(axis) to sum over it"
        )
    output = _labels(right, further)
    for label in output:
        if label not in known:
            raise ValueError(f"einsum: the output has {label!r}, which no operand has, in {subscripts!r}")
        if output.count(label) > 1:
            raise ValueError(f"einsum: the output may have {label!r} only once, in {subscripts!r}")
    return terms, output


def _labels(term: str, further: int) -> list[str]:
    """Return the labels of one term, in which "..." stands for `further` axes."""
    before, _, after = term.partition("...")
    return [*before, *[f"...{k}" for k in range(-further, 0)], *after]


def _sizes(subscripts: str, terms: Sequence[list[str]], shapes: Sequence[tuple[int, ...]]) -> dict[str, int]:
    """Return the size of every label; axes of size 1 broadcast."""
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, n in zip(term, shape, strict=True):
            size = sizes.setdefault(label, n)
            if size == 1:
                sizes[label] = n
            repeated = term.count(label) > 1 and n != shape[term.index(label)]
            if repeated or (n not in (1, size) and size != 1):
                name = f"subscript {label!r}" if label[0] != "." else f"axis {label[3:]} of '...'"
                raise ValueError(
                    f"einsum: {name} must have one size, got {size} and {n}, "
                    f"in {subscripts!r} of shapes {' and '.join(map(str, shapes))}"
                )
    return sizes


# ---- the steps: each takes and returns a Tensor and the labels of its axes -------------------------------------------


def _distinct(x: Tensor, labels: list[str], sizes: dict[str, int]) -> tuple[Tensor, list[str]]:
    """Take the diagonal over each repeated label, and drop axes of size 1 that broadcast against other operands."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = diagonal(x, 0, first, second)
            labels = [other for k, other in enumerate(labels) if k not in (first, second)] + [label]
    narrow = tuple(k for k, label in enumerate(labels) if x.shape[k] == 1 != sizes[label])
    return squeeze(x, narrow) if narrow else x, [label for k, label in enumerate(labels) if k not in narrow]


def _summed(x: Tensor, labels: list[str], wanted: set[str]) -> tuple[Tensor, list[str]]:
    """Sum over the axes whose labels are no longer wanted."""
    lone = tuple(k for k, label in enumerate(labels) if label not in wanted)
    return sum(x, lone) if lone else x, [label for label in labels if label in wanted]


def _joined(
    x: Tensor, x_labels: list[str], y: Tensor, y_labels: list[str], wanted: set[str]
) -> tuple[Tensor, list[str]]:
    """Multiply x and y, and sum over shared labels that are no longer wanted; axes (batch, left, right) remain."""
    shared = [label for label in x_labels if label in y_labels]
    batch = [label for label in shared if label in wanted]
    inner = [label for label in shared if label not in wanted]
    left = [label for label in x_labels if label not in y_labels]
    right = [label for label in y_labels if label not in x_labels]
    size = dict(zip(y_labels + x_labels, y.shape + x.shape, strict=True))

    def arranged(z: Tensor, labels: list[str], rows: list[str], columns: list[str]) -> Tensor:
        folded = [math.prod(size[label] for label in group) for group in (rows, columns)]
        order = [labels.index(label) for label in batch + rows + columns]
        return reshape(transpose(z, order), (*[size[label] for label in batch], *folded))

    product = matmul if inner else multiply
    z = product(arranged(x, x_labels, left, inner), arranged(y, y_labels, inner, right))
    labels = batch + left + right
    return reshape(z, tuple(size[label] for label in labels)), labels
