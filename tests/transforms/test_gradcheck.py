"""Tests of the tester: gradcheck must find each of these wrong gradients and say where it is."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.backend import namespace_of

POINTS = np.linspace(0.6, 2.1, 6).reshape(2, 3)


def expect_failure(f, *arrays, match, **options):
    """Check that gradcheck rejects `f` with a message that matches, and return the message."""
    with pytest.raises(tl.GradcheckError, match=match) as caught:
        tl.gradcheck(f, *arrays, **options)
    return str(caught.value)


def unary(derivative, name="planted"):
    """Return y = x^3 whose backward multiplies dy by `derivative(x)`, right or wrong."""

    class Planted(tl.Function):
        def forward(self, x):
            self.save(x)
            return x * x * x

        def backward(self, dy):
            (x,) = self.saved
            return derivative(x) * dy

    def f(x):
        return Planted.apply(x)

    f.__name__ = name
    return f


def test_a_right_gradient_passes_and_reports_its_errors():
    result = tl.gradcheck(unary(lambda x: 3 * x * x), POINTS)
    assert 0 <= result.first < 1e-9
    assert result.second is not None and 0 <= result.second < 1e-9
    assert tl.gradcheck(unary(lambda x: 3 * x * x), POINTS, order=1).second is None


@pytest.mark.parametrize(
    ("derivative", "reported"),
    [
        (lambda x: 3.003 * x * x, r"relative error (1\.0e-03|9\.99e-04|9\.9e-04)"),
        (lambda x: 999 * 3 * x * x, "relative error 1.0e"),
        (lambda x: -3 * x * x, r"relative error 2\.0e\+00"),
        (lambda x: x * x, "relative error"),
        (lambda x: 0 * x, "is 0,"),
    ],
    ids=["factor 1.001", "factor 999", "sign flipped", "factor forgotten", "zero"],
)
def test_wrong_factors_are_rejected(derivative, reported):
    message = expect_failure(unary(derivative, "cube"), POINTS, match=reported)
    assert message.startswith("cube: first order: gradient of input 0 (x) at element (")


def test_nan_is_rejected_at_the_element_where_it_is():
    def derivative(x):
        slope = 3 * x * x
        slope[1, 2] = np.nan
        return slope

    expect_failure(unary(derivative), POINTS, match=r"input 0.* at element \(1, 2\) is nan", order=1)


def test_infinity_is_rejected_at_the_element_where_it_is():
    def derivative(x):
        slope = 3 * x * x
        slope[0, 1] = np.inf
        return slope

    expect_failure(unary(derivative), POINTS, match=r"input 0.* at element \(0, 1\) is inf", order=1)


def test_a_single_wrong_element_is_named():
    def derivative(x):
        slope = 3 * x * x
        slope[1, 0] *= 1.00001
        return slope

    expect_failure(unary(derivative), POINTS, match=r"planted: first order: .* element \(1, 0\)", order=1)


def test_a_gradient_that_is_not_recorded_is_rejected():
    expect_failure(lambda x: (x * x).detach(), POINTS, match="first order: gradient of input 0")
    expect_failure(lambda x: x * x.detach(), POINTS, match="first order: gradient of input 0")


def test_a_softmax_gradient_that_a_sum_would_hide_is_rejected():
    class Softmax(tl.Function):
        def forward(self, x):
            e = np.exp(x)
            return e / e.sum(axis=-1, keepdims=True)

        def backward(self, dy):
            return dy * 0  # right for the loss y.sum(), which is constant

    def softmax(x):
        return Softmax.apply(x)

    x = tl.Tensor(POINTS, requires_grad=True)
    (dx,) = tl.grad(softmax(x).sum(), [x])
    np.testing.assert_array_equal(dx.numpy(), 0)
    expect_failure(softmax, POINTS, match="softmax: first order: gradient of input 0")


class CachedNorm(tl.Function):
    """y = x / s with s = sqrt(mean(x^2)), kept from the forward pass and so a constant in the second derivative."""

    recompute = False

    def forward(self, x):
        self.save(x)
        self.scale = np.sqrt((x * x).mean(axis=-1, keepdims=True))
        return x / self.scale

    def backward(self, dy):
        (x,) = self.saved
        s = namespace_of(x).sqrt((x * x).mean(axis=-1, keepdims=True)) if self.recompute else self.scale
        h = x / s
        return (dy - h * (dy * h).mean(axis=-1, keepdims=True)) / s


class RecomputedNorm(CachedNorm):
    recompute = True


def test_a_cached_statistic_fails_at_second_order_only():
    def cached(x):
        return CachedNorm.apply(x)

    tl.gradcheck(cached, POINTS, order=1)
    expect_failure(cached, POINTS, match="cached: second order: gradient of input 0.* at element")
    tl.gradcheck(lambda x: RecomputedNorm.apply(x), POINTS)


def test_an_array_in_place_of_a_saved_tensor_fails_at_second_order_only():
    class Square(tl.Function):
        def forward(self, x):
            self.x = x  # not saved: under create_graph it stays a raw array
            return x * x

        def backward(self, dy):
            return 2 * self.x * dy

    def square(x):
        return Square.apply(x)

    tl.gradcheck(square, POINTS, order=1)
    expect_failure(square, POINTS, match="square: second order")


def test_a_gradient_that_is_wrong_for_tensors_alone_is_rejected():
    """As if a right kernel hid a wrong formula: the second derivative would agree with the wrong first one."""
    planted = unary(lambda x: 3 * x * x * (1 if isinstance(x, np.ndarray) else 2), "split")
    tl.gradcheck(planted, POINTS, order=1)
    expect_failure(planted, POINTS, match="split: first order under create_graph: gradient of input 0.* at element")


def test_a_swapped_axis_is_rejected():
    class RowShare(tl.Function):
        def forward(self, x):
            self.save(x)
            return x / x.sum(axis=1, keepdims=True)

        def backward(self, dy):
            (x,) = self.saved
            total = x.sum(axis=1, keepdims=True)
            return (dy - (dy * x / total).sum(axis=0, keepdims=True)) / total

    def row_share(x):
        return RowShare.apply(x)

    expect_failure(row_share, POINTS, match="row_share: first order: gradient of input 0")


def test_a_swapped_axis_of_a_square_product_is_rejected():
    class Product(tl.Function):
        def forward(self, x, y):
            self.save(x, y)
            return x @ y

        def backward(self, dz):
            x, y = self.saved
            return dz @ y, x.swapaxes(-1, -2) @ dz  # the first lacks a swapaxes; square shapes let it pass

    expect_failure(lambda x, y: Product.apply(x, y), np.eye(2) + 0.3, POINTS[:, :2], match="input 0")


def test_gradients_of_the_wrong_input_are_rejected():
    class Product(tl.Function):
        def forward(self, x, y):
            self.save(x, y)
            return x * y

        def backward(self, dz):
            x, y = self.saved
            return dz * x, dz * y  # each is the other's

    expect_failure(lambda x, y: Product.apply(x, y), POINTS, POINTS + 1, match="input 0")

    class Scale(tl.Function):
        def forward(self, x, y):
            self.save(x, y)
            return x * y

        def backward(self, dz):
            return dz * self.saved[1], dz * 0

    expect_failure(lambda x, y: Scale.apply(x, y), POINTS, POINTS + 1, match="input 1.* at element")


def test_a_missing_sum_over_broadcast_axes_names_the_op_and_both_shapes():
    class RowSum(tl.Function):  # does not declare that it broadcasts
        def forward(self, x, y):
            return x + y

        def backward(self, dz):
            return dz, dz

    with pytest.raises(RuntimeError, match=r"row_sum: gradient for input 1 .*\(3,\).*\(2, 3\)"):
        tl.gradcheck(lambda x, y: RowSum.apply(x, y), POINTS, POINTS[0])


def test_a_dropped_keepdims_is_rejected_even_where_shapes_happen_to_fit():
    class Centre(tl.Function):
        def forward(self, x):
            return x - x.mean(axis=1, keepdims=True)

        def backward(self, dy):
            return dy - dy.mean(axis=1)  # (3, 3) - (3,): broadcasts along the wrong axis

    def centre(x):
        return Centre.apply(x)

    expect_failure(centre, np.arange(9.0).reshape(3, 3), match="centre: first order")


def test_every_output_and_every_input_counts():
    def two(x, y):
        return x * 2, unary(lambda x: 2 * x * x)(y)

    expect_failure(two, POINTS, POINTS, match="two: first order: gradient of input 1")


def test_inputs_without_influence_and_outputs_without_derivative_are_no_error():
    tl.gradcheck(lambda x, y: x * x, POINTS, POINTS)
    tl.gradcheck(lambda x: (x * x, x.argmax(), x > 0), POINTS)


def test_sizes_zero_and_one():
    for array in (np.zeros((0, 3)), np.array(1.5), np.full((1, 1), 1.5)):
        tl.gradcheck(unary(lambda x: 3 * x * x), array)
    expect_failure(unary(lambda x: 4 * x * x), np.array(1.5), match=r"input 0.* at element \(\)")


def test_arguments():
    with pytest.raises(ValueError, match="order must be 1 or 2, got 3"):
        tl.gradcheck(lambda x: x, POINTS, order=3)
    expect_failure(unary(lambda x: 4 * x * x), POINTS, name="renamed", match="^renamed: ")
    points = POINTS.copy()
    tl.gradcheck(unary(lambda x: 3 * x * x), points)
    np.testing.assert_array_equal(points, POINTS)


def test_inputs_may_be_tensors_but_not_a_tuple_of_them():
    x = tl.Tensor([0.5, 1.0], requires_grad=True)
    assert tl.gradcheck(tl.exp, x).first < 1e-9 and x.grad is None
    for inputs in ((x, x), [x.numpy()]):
        with pytest.raises(
            TypeError, match=r"gradcheck: input 0 must be one array, got a (tuple of 2|list of 1); pass"
        ):
            tl.gradcheck(tl.multiply, inputs)
    assert tl.gradcheck(tl.exp, [0.5, 1.0]).first < 1e-9
