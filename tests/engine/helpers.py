"""Shared by several tests of the engine: leaves, an assertion, and ops that fail."""

import gc

import numpy as np

import tensorlib as tl


def leaf(values, **options):
    """Return a Tensor that requires a gradient."""
    return tl.Tensor(values, requires_grad=True, **options)


def assert_grad(x, expected):
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-6)


def without_collector(f):
    """Return ``f()``, called while the garbage collector is off."""
    gc.collect()
    gc.disable()
    try:
        return f()
    finally:
        gc.enable()


class Failing(tl.Function):
    """The identity; its backward raises `error`."""

    error: type[BaseException] = ValueError

    def forward(self, x):
        return x * 1

    def backward(self, dy):
        raise self.error("on the way")


class Interrupted(Failing):
    error = KeyboardInterrupt
