"""Errors of ops in the user's words."""

import numpy as np
import pytest

import tensorlib as tl
from tests.engine.helpers import assert_grad, leaf


def test_mixed_backends():
    from tests.strict import STRICT

    x, y = tl.Tensor([1.0]), tl.Tensor([2.0], backend=STRICT)
    for f in (
        lambda: x + y,
        lambda: y + x,
        lambda: y * x.data,
        lambda: tl.maximum(x, y),
        lambda: tl.concatenate([x, y]),
    ):
        with pytest.raises(
            TypeError, match=r"operands must be on one backend, got (numpy and strict|strict and numpy); move"
        ):
            f()
    with pytest.raises(TypeError, match="backward: the gradient must be on the output's backend numpy, got strict"):
        tl.Tensor([1.0], requires_grad=True).backward(y)
    with pytest.raises(ValueError, match="backend: must be one of numpy, cpu, cupy, cuda, gpu; got 'tpu'"):
        tl.Tensor([1.0], backend="tpu")


def test_a_value_replaced_since_the_forward_pass_is_an_error():
    w = leaf([1.0, 2.0])
    w.name = "encoder.weight"
    y = (w * w).sum()
    w.replace(np.array([5.0, 5.0], np.float32))
    with pytest.raises(RuntimeError, match=r"multiply needs .* encoder.weight of shape \(2,\) .*version 0.*version 1"):
        y.backward()
    assert w.grad is None
    unused = (w + 1).sum()  # add keeps no array, so it may be replaced
    w.replace(np.zeros(2, np.float32))
    unused.backward()
    assert_grad(w, [1, 1])
    with pytest.raises(RuntimeError, match="replace: needs a leaf"):
        (w * 2).replace(np.zeros(2, np.float32))
