"""What the caller writes into an array that an op was given changes no gradient and no result."""

import copy

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.optable import ROWS
from tests.ops.test_table import DIFFERENTIABLE, cotangents_for, outputs


def arrays_in(value):
    """Return the arrays in the arguments of a call, also those inside an index tuple."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [array for part in value for array in arrays_in(part)] if isinstance(value, tuple | list) else []


def scribble(arrays):
    """Overwrite arrays with other values of their kind: other numbers, valid indices, other booleans."""
    for array in arrays:
        array[...] = ~array if array.dtype.kind == "b" else 0 if array.dtype.kind in "iu" else -7.25


def converted(value, convert):
    if isinstance(value, np.ndarray):
        return convert(value)
    return tuple(converted(part, convert) for part in value) if isinstance(value, tuple) else value


def call(row, sample, xs, convert):
    """Call the op of a row with `xs` in place of the shapes, and the other arrays converted; return the arrays, too."""
    arguments, keywords = copy.deepcopy(sample.arguments), copy.deepcopy(sample.keywords)
    filled = iter(xs)
    given = [next(filled) if isinstance(a, tuple) and not arrays_in(a) else a for a in arguments]
    constants = arrays_in([a for a in given if not isinstance(a, tl.Tensor)]) + arrays_in(keywords)
    given = [converted(a, convert) for a in given]
    return outputs(row.function(*given, **{k: converted(v, convert) for k, v in keywords.items()})), constants


def cases(row):
    """Yield (sample, position of the input that is differentiated)."""
    for sample in row.samples:
        for i, array in enumerate(row.arrays(sample)):
            if array.dtype.kind == "f":
                yield sample, i


def gradients(row, sample, i, convert, act):
    """Return the gradient of input i, in first and second order, with `act` on the other arrays after the forward."""
    arrays = row.arrays(sample)
    x = tl.Tensor(arrays[i], requires_grad=True)
    ys, constants = call(row, sample, [x if k == i else a for k, a in enumerate(arrays)], convert)
    ys = [y for y in ys if y.requires_grad]
    cotangents = [c.astype(y.dtype) for c, y in zip(cotangents_for(ys), ys, strict=True)]
    tensors = [tl.Tensor(c, requires_grad=True) for c in cotangents]
    act(constants)
    (dx,) = tl.grad(ys, [x], tensors, create_graph=True)
    act(constants)
    second = [dx]
    if dx.requires_grad:
        second += [
            d for d in tl.grad(dx, [x, *tensors], np.ones(dx.shape, dx.dtype), allow_unused=True) if d is not None
        ]
    return [d.numpy() for d in second]


@pytest.mark.parametrize("convert", [lambda array: array, tl.from_numpy], ids=["array", "from_numpy"])
@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_writing_into_an_argument_changes_no_gradient(row, convert):
    for sample, i in cases(row):
        expected = gradients(row, sample, i, convert, lambda constants: None)
        for dx, wanted in zip(gradients(row, sample, i, convert, scribble), expected, strict=True):
            np.testing.assert_array_equal(dx, wanted, err_msg=f"{row.name}({sample}), input {i}")


FROM_NUMBERS = {"arange", "bernoulli", "eye", "full", "gumbel", "linspace", "normal", "ones", "uniform", "zeros"}


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS if row.name not in FROM_NUMBERS])
def test_no_result_shares_memory_with_an_array_of_the_caller(row):
    for sample in row.samples:
        ys, constants = call(row, sample, row.arrays(sample), lambda array: array)
        for y in ys:
            for array in constants:
                assert not np.shares_memory(y.data, array), f"{row.name}({sample})"


@pytest.mark.parametrize("row", DIFFERENTIABLE)
def test_assigning_to_the_data_of_an_argument_is_an_error_or_changes_no_gradient(row):
    for sample, i in cases(row):
        expected = gradients(row, sample, i, tl.Tensor, lambda constants: None)
        made = []

        def tensor(array, made=made):
            made.append(tl.Tensor(array))
            return made[-1]

        def overwrite(_, made=made):
            for x in made:
                scribble([x.data])
                x.data = x.data

        try:
            found = gradients(row, sample, i, tensor, overwrite)
        except RuntimeError as error:
            assert "overwritten since the forward pass" in str(error)
            continue
        for dx, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(dx, wanted, err_msg=f"{row.name}({sample}), input {i}")
