"""Random Tensors: their distributions, that they repeat, that backends agree, and mistakes.

The seeds are fixed, so a distribution test either always passes or always fails. Its bounds are those that a right
sampler misses once in some ten thousand seeds.
"""

import math

import numpy as np
import pytest

import tensorlib as tl
from tests.strict import STRICT

N = 200_000


def draw(f, *arguments, seed=1, **options):
    return f(*arguments, generator=tl.Generator(seed), **options).numpy().astype(np.float64)


def assert_follows(sample, cumulative):
    """Compare with a distribution as Kolmogorov and Smirnov do: the largest gap is of order 1 / sqrt(n)."""
    x = np.sort(sample.reshape(-1))
    expected = cumulative(x)
    ranks = np.arange(x.size + 1) / x.size
    gap = max(np.abs(expected - ranks[:-1]).max(), np.abs(expected - ranks[1:]).max())
    assert gap < 2.3 / math.sqrt(x.size), f"Kolmogorov-Smirnov: gap {gap:.2e}"  # P(larger) = 2 exp(-2 · 2.3²) = 5e-5


def assert_moments(sample, mean, variance, fourth):
    """Compare mean, variance and fourth central moment, each within 4 of its standard errors or thereabouts."""
    scale = math.sqrt(sample.size)
    centred = sample - mean
    assert abs(centred.mean()) < 4 * math.sqrt(variance) / scale
    assert abs((centred**2).mean() - variance) < 4 * math.sqrt(fourth - variance**2) / scale
    assert abs((centred**4).mean() / fourth - 1) < 40 / scale


def normal_cdf(x):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])


def gumbel_cdf(x):
    return np.exp(-np.exp(-x))


DTYPES = ["float32", "float64"]


# ---- distributions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_is_uniform(dtype):
    x = draw(tl.uniform, N, -1.0, 3.0, dtype=dtype)
    assert_follows(x, lambda v: (v + 1) / 4)
    assert_moments(x, 1.0, 16 / 12, 256 / 80)
    assert -1 <= x.min() < -0.9998 and 2.9998 < x.max() < 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_is_normal(dtype):
    x = draw(tl.normal, N, dtype=dtype)
    assert_follows(x, normal_cdf)
    assert_moments(x, 0.0, 1.0, 3.0)
    assert_follows(draw(tl.normal, N, 5.0, 0.1, dtype=dtype) * 10 - 50, normal_cdf)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_tails_of_normal_have_the_right_weight(dtype):
    x = draw(tl.normal, 1_000_000, dtype=dtype, seed=2)
    for bound in (2, 3, 4):
        for tail in (x > bound, x < -bound):
            expected = x.size * 0.5 * math.erfc(bound / math.sqrt(2))
            assert abs(tail.sum() - expected) < 4 * math.sqrt(expected)


def test_neighbours_are_independent():
    """A pair of normal numbers comes from one radius and one angle; neither they nor their squares correlate."""
    for f in (tl.normal, tl.uniform, tl.gumbel):
        x = draw(f, N)
        for lag in (1, 2, 4):
            for y in (x, (x - x.mean()) ** 2):
                assert abs(np.corrcoef(y[:-lag], y[lag:])[0, 1]) < 4 / math.sqrt(N), f"{f.__name__}, lag {lag}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_gumbel_is_gumbel(dtype):
    x = draw(tl.gumbel, N, dtype=dtype)
    assert_follows(x, gumbel_cdf)
    assert abs(x.mean() - np.euler_gamma) < 4 * math.pi / math.sqrt(6 * N)
    for bound in (3, 6, 9):
        expected = N * -math.expm1(-math.exp(-bound))
        assert abs((x > bound).sum() - expected) < 4 * math.sqrt(expected) + 1


@pytest.mark.parametrize("p", [0.001, 0.3, 0.5, 0.99])
def test_bernoulli_is_1_with_probability_p(p):
    x = draw(tl.bernoulli, p, N)
    assert set(np.unique(x)) == {0, 1} and abs(x.mean() - p) < 4 * math.sqrt(p * (1 - p) / N)


def test_categorical_draws_by_softmax():
    logits = np.array([0.0, 1.0, -2.0, 3.0, -np.inf])
    p = np.exp(logits) / np.exp(logits).sum()
    for dtype in ("float32", "float64", "float16"):
        rows = np.broadcast_to(logits, (N // 4, 5)).astype(dtype)
        counts = np.bincount(draw(tl.categorical, rows).astype(int), minlength=5)
        chi2 = ((counts - p * N / 4)[:4] ** 2 / (p * N / 4)[:4]).sum()
        assert counts[4] == 0 and chi2 < 21  # P(larger) = 1e-4 at 3 degrees of freedom
    columns = draw(tl.categorical, np.ascontiguousarray(rows.T).astype("float64"), axis=0)
    assert abs((columns == 3).mean() - p[3]) < 0.01


def test_every_permutation_is_equally_likely():
    stream = tl.Generator(3)
    counts = {}
    for _ in range(6000):
        order = tuple(tl.permutation(3, stream).numpy().tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6 and sum((c - 1000) ** 2 / 1000 for c in counts.values()) < 26


def test_permutation_has_each_integer_once():
    for n in (0, 1, 2, 1000):
        assert sorted(tl.permutation(n).numpy()) == list(range(n))
    assert tl.permutation(2).dtype == np.int64


def test_float16_can_be_drawn(backend):
    for f in (tl.normal, tl.uniform, tl.gumbel):
        x = f((50, 40), dtype="float16", backend=backend, generator=tl.Generator(0))
        assert x.dtype == np.float16 and np.isfinite(x.numpy()).all()
    u = draw(tl.uniform, 2_000, dtype="float16")
    assert u.max() < 1 and abs(u.mean() - 0.5) < 0.03


# ---- extremes ----------------------------------------------------------------------------------------------------


class Fixed:
    """Replaces the words of a draw by given ones: the extremes, which random tests would practically never hit."""

    def __init__(self, bits):
        self.bits = bits

    def __call__(self, key, draw, count, dtype="uint16"):
        return np.resize(np.array(self.bits, dtype), count)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_bits_give_an_infinity_or_reach_the_open_end(dtype, monkeypatch):
    host = tl.get_backend("numpy")
    with np.errstate(all="raise", under="ignore"):
        for word in (0, -1):
            size = 8 * max(np.dtype(dtype).itemsize, 4)
            bits = word % 2**size
            monkeypatch.setattr(host, "random_bits", Fixed([bits]), raising=False)
            assert np.isfinite(tl.normal(4, dtype=dtype).numpy()).all()
            assert np.isfinite(tl.gumbel(4, dtype=dtype).numpy()).all()
            monkeypatch.setattr(host, "random_bits", Fixed([word % 2 ** (8 * np.dtype(dtype).itemsize)]))
            for low, high in ((0.0, 1.0), (1.0, 2.0), (-3.0, 7.0), (2.0, 2.0)):
                u = tl.uniform(4, low, high, dtype=dtype).numpy()
                bound = np.dtype(dtype).type(high)
                assert (u >= np.dtype(dtype).type(low)).all() and ((u < bound).all() or low == high or bound == low)
            monkeypatch.setattr(host, "random_bits", Fixed([word % 2**64]))
            assert (tl.bernoulli(1.0, 4).numpy() == 1).all() and (tl.bernoulli(0.0, 4).numpy() == 0).all()


# ---- reproducibility ---------------------------------------------------------------------------------------------

SAMPLERS = {
    "normal": lambda **o: tl.normal((5, 3), **o),
    "uniform": lambda **o: tl.uniform((5, 3), **o),
    "gumbel": lambda **o: tl.gumbel((5, 3), **o),
    "bernoulli": lambda **o: tl.bernoulli(0.5, (5, 3), **o),
    "permutation": lambda **o: tl.permutation(20, **o),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_seed_repeats_and_each_call_draws_again(name, backend):
    f = SAMPLERS[name]
    stream, again = tl.Generator(9), tl.Generator(9)
    first, second = (f(generator=stream, backend=backend).numpy() for _ in range(2))
    np.testing.assert_array_equal(f(generator=again, backend=backend).numpy(), first)
    assert again.state == (9, 1) and (first != second).any()
    tl.seed(9)
    np.testing.assert_array_equal(f(backend=backend).numpy(), first)
    np.testing.assert_array_equal(f(backend=backend).numpy(), second)
    assert tl.default_generator().state == (9, 2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_backends_draw_the_same_numbers(name, backend):
    f = SAMPLERS[name]
    here, host = f(generator=tl.Generator(4), backend=backend), f(generator=tl.Generator(4))
    assert here.backend is backend
    np.testing.assert_allclose(here.numpy(), host.numpy(), rtol=2e-6, atol=2e-6)


def test_a_number_depends_only_on_its_position():
    """Not on the number drawn, nor on their shape."""
    for f in (tl.normal, tl.uniform, tl.gumbel):
        for dtype in DTYPES:
            long = draw(f, 101, dtype=dtype)
            for n in (0, 1, 2, 7, 100):
                np.testing.assert_array_equal(draw(f, n, dtype=dtype), long[:n])
            np.testing.assert_array_equal(draw(f, (5, 20), dtype=dtype).reshape(-1), long[:100])


def test_uniform_is_numpys_philox():
    """So a reader can reproduce the numbers without this library."""
    for dtype in DTYPES:
        expected = np.random.Generator(np.random.Philox(key=7, counter=[0, 0, 0, 0])).random(9, dtype=dtype)
        np.testing.assert_array_equal(tl.uniform(9, dtype=dtype, generator=tl.Generator(7)).numpy(), expected)


def test_wider_numbers_use_the_same_words(backend):
    narrow = backend.to_numpy(backend.random_bits(5, 2, 40))
    for dtype in ("uint32", "uint64"):
        wide = backend.to_numpy(backend.random_bits(5, 2, 40 * 2 // np.dtype(dtype).itemsize, dtype))
        assert wide.dtype == dtype
        np.testing.assert_array_equal(wide.view(np.uint16), narrow)
    assert backend.random_bits(5, 2, 0, "uint32").shape == (0,)


# ---- Tensor arguments --------------------------------------------------------------------------------------------


def test_permutation_of_a_tensor_is_differentiable(backend):
    x = tl.Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True, backend=backend)
    y = tl.permutation(x, tl.Generator(1))
    order = tl.permutation(3, tl.Generator(1)).numpy()
    np.testing.assert_array_equal(y.numpy(), x.numpy()[order])
    (dx,) = tl.grad(y, [x], tl.Tensor(y.numpy(), backend=backend))
    np.testing.assert_array_equal(dx.numpy(), x.numpy())


def test_p_and_logits_get_no_gradient_and_determine_the_backend(backend):
    p = tl.Tensor([0.0, 1.0], requires_grad=True, backend=backend)
    x = tl.bernoulli(p)
    assert x.shape == (2,) and x.backend is backend and not x.requires_grad
    np.testing.assert_array_equal(tl.bernoulli(p, (3, 2), dtype=bool).numpy(), [[False, True]] * 3)
    ids = tl.categorical(tl.Tensor([[0.0, 99.0]], requires_grad=True, backend=backend))
    assert ids.dtype == np.int64 and ids.backend is backend and not ids.requires_grad and ids.numpy() == [1]


def test_drawing_no_elements(backend):
    assert tl.normal((0, 3), backend=backend).shape == tl.uniform((0, 3), backend=backend).shape == (0, 3)
    assert tl.categorical(tl.zeros((0, 3), backend=backend)).shape == tl.permutation(0, backend=backend).shape == (0,)


# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda: tl.normal((2, -1)), ValueError, r"normal: shape needs integers >= 0, got \(2, -1\)"),
    (lambda: tl.normal(2.5), TypeError, "normal: shape needs an integer >= 0, got 2.5"),
    (lambda: tl.normal(2, std=-1.0), ValueError, "normal: std must be at least 0, got -1.0"),
    (lambda: tl.normal(2, std=float("nan")), ValueError, "normal: std must be at least 0, got nan"),
    (lambda: tl.normal(2, tl.ones(2)), TypeError, r"normal: mean must be a number, got a Tensor of shape \(2,\)"),
    (lambda: tl.normal(2, dtype="int64"), TypeError, "normal: dtype must be 'float16', .* got int64"),
    (lambda: tl.normal(2, dtype="float33"), TypeError, "normal: dtype must be numeric, .* got 'float33'"),
    (lambda: tl.normal(2, generator=0), TypeError, r"normal: generator must be a tl.Generator, .* got 0"),
    (lambda: tl.normal(2, backend="tpu"), ValueError, "backend: must be one of .* got 'tpu'"),
    (lambda: tl.uniform(2, 1.0, 0.0), ValueError, "uniform: low must not exceed high, .* got 1.0 and 0.0"),
    (lambda: tl.uniform(2, -3e38, 3e38), ValueError, r"uniform: .* must fit into float32; got -3e\+38 and 3e\+38"),
    (lambda: tl.uniform(2, [0.0]), TypeError, r"uniform: low must be a number, got \[0.0\]"),
    (lambda: tl.uniform(2, dtype=int), TypeError, "uniform: dtype must be 'float16', .* got int64"),
    (lambda: tl.gumbel(-2), ValueError, "gumbel: shape needs an integer >= 0, got -2"),
    (lambda: tl.bernoulli(1.5, 2), ValueError, r"bernoulli: p must lie in \[0, 1\], got 1.5"),
    (lambda: tl.bernoulli([0.5, -0.1]), ValueError, r"bernoulli: p must lie in \[0, 1\], got -0.1"),
    (lambda: tl.bernoulli(float("nan"), 2), ValueError, r"bernoulli: p must lie in \[0, 1\], got nan"),
    (lambda: tl.bernoulli([0.5] * 3, 2), ValueError, r"broadcast_to: .* got \(3,\) for \(2,\)"),
    (lambda: tl.categorical([1, 2]), TypeError, "categorical: logits must .* floating dtype, got int64; use .as"),
    (lambda: tl.categorical(np.zeros((2, 0))), ValueError, r"categorical: .* along axis 1, got shape \(2, 0\)"),
    (lambda: tl.categorical([0.5], axis=1), ValueError, "categorical: axis must lie .* got 1"),
    (lambda: tl.permutation(-1), ValueError, "permutation: x needs an integer >= 0, got -1"),
    (lambda: tl.permutation(2.5), TypeError, "permutation: x must be an integer or have an axis"),
    (lambda: tl.permutation(3, 0), TypeError, "permutation: generator must be a tl.Generator, .* got 0"),
    (lambda: tl.Generator(-1), ValueError, r"Generator: seed must lie in \[0, 2\*\*128\), got -1"),
    (lambda: tl.Generator(1.5), TypeError, "Generator: seed must be an integer, got 1.5"),
    (lambda: tl.seed(None), TypeError, "Generator: seed must be an integer, got None"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message):
    before = tl.default_generator().state
    with pytest.raises(error, match=message):
        mistake()
    assert tl.default_generator().state == before  # a call that failed drew nothing


def test_a_p_on_a_device_is_not_fetched_for_a_check():
    assert tl.bernoulli(tl.Tensor([2.0], backend=STRICT)).numpy() == [1]
