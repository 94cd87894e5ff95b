"""Gradients as `grad`, hooks and `.grad` hand them out: arrays that share no memory with another gradient."""

import numpy as np

import tensorlib as tl


def test_an_input_that_is_listed_twice_gets_two_gradients_that_share_no_memory():
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    unused = tl.Tensor([3.0], requires_grad=True)
    first, second, *missing = tl.grad((x * x).sum(), [x, x, unused, unused], allow_unused=True)
    assert first.numpy().tolist() == second.numpy().tolist() == [2.0, 4.0]
    assert not np.shares_memory(first.numpy(), second.numpy())
    assert missing == [None, None]


def test_a_gradient_that_a_hook_kept_shares_no_memory_with_grad():
    weight = tl.Tensor(np.ones((3, 2), "float32"), requires_grad=True)
    kept = []
    weight.register_hook(kept.append)
    tl.linear(tl.Tensor(np.ones((4, 3), "float32")), weight).sum().backward()  # an op whose gradients are fresh
    assert not np.shares_memory(kept[0].numpy(), weight.grad.numpy())


def test_a_hook_on_a_scalar_that_is_used_twice_gets_an_array():
    x = tl.Tensor(3.0, requires_grad=True)  # NumPy adds two arrays without axes to a scalar
    kept = []
    x.register_hook(kept.append)
    (x * x).backward()
    assert isinstance(kept[0].data, np.ndarray) and kept[0].item() == 6.0
