"""Linear maps, convolution and pooling: edge cases, and mistakes."""

from math import inf

import numpy as np

import tensorlib as tl
from tensorlib.ops.convolution import Grid, SumWindows
from tests.edges import assert_edge, edge, refused_of_a_matrix


def test_convolution_by_hand(backend):
    x = tl.Tensor([[[1.0, 2.0, 3.0, 4.0]]], backend=backend)
    assert_edge([tl.conv1d(x, [[[1.0, 10.0]]]).numpy()], [[[21, 32, 43]]])  # the window is not flipped
    assert_edge([tl.conv1d(x, [[[1.0, 10.0]]], [0.5], 2, 1).numpy()], [[[10.5, 32.5, 4.5]]])
    assert_edge([tl.conv1d(x, [[[1.0, 10.0]]], dilation=3).numpy()], [[[41]]])


def test_groups_see_their_own_channels(backend):
    x = tl.Tensor([[[1.0, 2.0], [10.0, 20.0]]], backend=backend)
    weight = tl.Tensor([[[1.0]], [[2.0]], [[3.0]], [[4.0]]], backend=backend)
    assert_edge([tl.conv1d(x, weight, groups=2).numpy()], [[[1, 2], [2, 4], [30, 60], [40, 80]]])


def test_windows_of_one_position_are_a_dense_layer(backend):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 2, 2)), rng.standard_normal((4, 3))
    y = tl.conv2d(tl.Tensor(x, backend=backend), weight[:, :, None, None])
    np.testing.assert_allclose(y.numpy(), np.moveaxis(tl.linear(np.moveaxis(x, 1, -1), weight.T).numpy(), -1, 1))


def test_elements_in_several_windows_get_the_gradient_of_all(backend):
    _, dx = edge(lambda x: tl.avg_pool(x, 2, 1), np.ones((1, 1, 4)), backend=backend, cotangent=[[[2, 4, 8]]])
    assert_edge([dx], [[[1, 3, 6, 4]]])


def test_tied_maxima_of_a_window_share_the_gradient_evenly(backend):
    found = edge(lambda x: tl.max_pool(x, 2), [[[3.0, 3.0, 1.0, 2.0]]], backend=backend, cotangent=[[[4, 6]]])
    assert_edge(found, [[[3, 2]]], [[[2, 2, 0, 6]]])


def test_padding_is_never_a_maximum_and_counts_as_zeros_in_a_mean(backend):
    found = edge(lambda x: tl.max_pool(x, 2, 1, 1), [[[-5.0, -7.0]]], backend=backend)
    assert_edge(found, [[[-5, -5, -7]]], [[[2, 1]]])
    found = edge(lambda x: tl.avg_pool(x, 2, 1, 1), [[[-5.0, -7.0]]], backend=backend)
    assert_edge(found, [[[-2.5, -6, -3.5]]], [[[1, 1]]])
    whole = tl.max_pool(tl.Tensor([[[-5, -7]]], backend=backend), 2, 1, 1)
    assert whole.dtype == np.int64
    assert_edge([whole.numpy()], [[[-5, -5, -7]]])


def test_elements_that_a_stride_skips_get_no_gradient(backend):
    found = edge(lambda x: tl.max_pool(x, [2], 3), [1.0, 2.0, inf, 4.0, 3.0, inf], backend=backend)
    assert_edge(found, [2, 4], [0, 1, 0, 1, 0, 0])


def test_means_of_large_numbers_in_half_precision(backend):
    value, dx = edge(lambda x: tl.avg_pool(x, 100), np.full((1, 1, 100), 3e4), backend=backend, dtype="float16")
    assert value.dtype == dx.dtype == np.float16
    assert_edge([value], [[[np.float16(3e4)]]])


def test_windows_that_overlap_in_memory_leave_the_input_alone(backend):
    x = tl.Tensor(np.arange(6.0).reshape(1, 1, 6), requires_grad=True, backend=backend)
    tl.conv1d(x, tl.ones((1, 1, 3), backend=backend), padding=2).sum().backward()
    assert_edge([x.numpy(), x.grad.numpy()], [[np.arange(6)]], 3)


# ---- mistakes ----------------------------------------------------------------------------------------------------


def picture(x):
    return x.reshape(1, 1, 2, 3)


BAD = [
    (lambda x: tl.linear(x, x), ValueError, r"linear: .* got \(2, 3\) and \(2, 3\); did you mean weight.T\?"),
    (lambda x: tl.linear(x, x[0]), ValueError, r"linear: .* weight \(in, out\), got \(2, 3\) and \(3,\)"),
    (lambda x: tl.linear(x[0, 0], x), ValueError, r"linear: .* got \(\) and \(2, 3\)"),
    (lambda x: tl.linear(x, x.T, x[0]), ValueError, r"linear: bias must have shape \(2,\), .* got \(3,\)"),
    (lambda x: tl.conv1d(x, x), ValueError, r"conv1d: x must be \(B, C, L\) .* got \(2, 3\) and \(2, 3\)"),
    (lambda x: tl.conv2d(x[None], picture(x)), ValueError, r"conv2d: x must be \(B, C, H, W\) .* got \(1, 2, 3\)"),
    (lambda x: tl.conv1d(x[None], x[None, :1]), ValueError,
     r"conv1d: weight must have 2 channels in axis 1 for x \(1, 2, 3\) and groups=1, got \(1, 1, 3\)"),
    (lambda x: tl.conv1d(x[None], x[None], groups=3), ValueError, "conv1d: groups must divide .* 2 and 1; got 3"),
    (lambda x: tl.conv1d(x[None], x[None], groups=0), ValueError, "conv1d: groups must divide .* got 0"),
    (lambda x: tl.conv1d(x[None], x[None], x), ValueError, r"conv1d: bias must have shape \(1,\), .* got \(2, 3\)"),
    (lambda x: tl.conv2d(picture(x), picture(x), stride=0), ValueError, "conv2d: stride .* 1 or more; got 0"),
    (lambda x: tl.conv2d(picture(x), picture(x), padding=-1), ValueError, "conv2d: padding .* 0 or more; got -1"),
    (lambda x: tl.conv2d(picture(x), picture(x), padding="same"), TypeError, "conv2d: padding must be .* got 'same'"),
    (lambda x: tl.conv2d(picture(x), picture(x), dilation=(1, 1, 1)), ValueError, r"dilation .* got \(1, 1, 1\)"),
    (lambda x: tl.conv2d(picture(x), picture(x), dilation=2), ValueError,
     r"conv2d: the window must .* kernel \(2, 3\) with dilation \(2, 2\) for sizes \(2, 3\)"),
    (lambda x: tl.max_pool(x, 2), ValueError, r"max_pool: kernel_size .* got 2 for x \(2, 3\)"),
    (lambda x: tl.max_pool(x[None], 4), ValueError, r"max_pool: the window must .* \(4,\) .* sizes \(3,\)"),
    (lambda x: tl.max_pool(x[None], 2, padding=2), ValueError, r"max_pool: padding .* half .* \(2,\), got \(2,\)"),
    (lambda x: tl.max_pool(x[None], 2, 1.5), TypeError, "max_pool: stride must be an integer .* got 1.5"),
    (lambda x: tl.max_pool(x[None], 0), ValueError, "max_pool: kernel_size .* 1 or more; got 0"),
    (lambda x: tl.avg_pool(x, (1, 1, 1)), ValueError, r"avg_pool: kernel_size .* got \(1, 1, 1\) for x \(2, 3\)"),
    (lambda x: tl.avg_pool(x[None], 2, stride=0), ValueError, "avg_pool: stride .* 1 or more; got 0"),
    (lambda x: tl.avg_pool(x[None], "2"), TypeError, "avg_pool: kernel_size must be an integer .* got '2'"),
]  # fmt: skip


test_mistakes_are_named_with_the_value_and_the_remedy = refused_of_a_matrix(BAD)


def test_adding_windows_back_is_right_to_second_order():
    """It is not a public function, so no row of the table checks it."""
    grid = Grid(sizes=(4, 3), kernel=(2, 2), stride=(1, 1), padding=(1, 0), dilation=(1, 1))
    x = np.random.default_rng(0).normal(size=(*grid.kernel, 2, *grid.counts))
    tl.gradcheck(lambda x: SumWindows.apply(x, grid=grid), x)
    tl.gradcheck(lambda x: SumWindows.apply(x * x, grid=grid), x)
