"""Results of tl.grad that belong to the caller alone."""

import numpy as np

import tensorlib as tl


def test_an_input_that_is_listed_twice_gets_two_gradients_that_share_no_memory():
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    unused = tl.Tensor([3.0], requires_grad=True)
    first, second, *missing = tl.grad((x * x).sum(), [x, x, unused, unused], allow_unused=True)
    assert first.numpy().tolist() == second.numpy().tolist() == [2.0, 4.0]
    assert not np.shares_memory(first.numpy(), second.numpy())
    assert missing == [None, None]
