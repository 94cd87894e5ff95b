"""Rotary positions: the formula, that only distances count, gradients, and attention with them."""

import re

import numpy as np
import pytest

import nn
import tensorlib as tl


def turned(x, start=0, base=10_000.0):
    """Return the rows of x (..., T, K) turned, as complex numbers: (x_i + 1j x_j) exp(1j t f_i)."""
    length, width = x.shape[-2:]
    angles = (start + np.arange(length))[:, None] / base ** (np.arange(width // 2) / (width // 2))
    z = (x[..., : width // 2] + 1j * x[..., width // 2 :]) * np.exp(1j * angles)
    return np.concatenate([z.real, z.imag], axis=-1)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("start, base, width", [(0, 10_000.0, 8), (5, 10_000.0, 2), (1_000, 500.0, 6)])
def test_it_is_the_product_of_complex_numbers(start, base, width):
    x = drawn(2, 3, 7, width)
    found = nn.RotaryPositions(width, base)(tl.Tensor(x), start).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, turned(x, start, base), atol=1e-13)


def test_neighbours_as_pairs_only_name_the_numbers_in_another_order():
    x, order = drawn(3, 8), [0, 2, 4, 6, 1, 3, 5, 7]  # the paper's pair 2i, 2i + 1 becomes i, i + K / 2
    frequencies = 10_000.0 ** (-np.arange(4) / 4)
    paper = np.empty_like(x)
    for t in range(3):
        for i, f in enumerate(frequencies):
            c, s = np.cos(t * f), np.sin(t * f)
            paper[t, 2 * i : 2 * i + 2] = np.array([[c, -s], [s, c]]) @ x[t, 2 * i : 2 * i + 2]  # equation 15
    np.testing.assert_allclose(nn.RotaryPositions(8)(tl.Tensor(x[:, order])).numpy(), paper[:, order], atol=1e-14)


@pytest.mark.parametrize("shift", [1, 12, 400])
def test_only_distances_count(shift):
    rotary, q, k = nn.RotaryPositions(6), tl.Tensor(drawn(5, 6)), tl.Tensor(drawn(5, 6, seed=1))
    scores = (rotary(q) @ rotary(k).swapaxes(0, 1)).numpy()
    np.testing.assert_allclose((rotary(q, shift) @ rotary(k, shift).swapaxes(0, 1)).numpy(), scores, atol=1e-12)
    assert abs((rotary(q, shift) @ rotary(k).swapaxes(0, 1)).numpy() - scores).max() > 0.1


def test_rows_that_are_computed_later_are_the_same():
    rotary, x = nn.RotaryPositions(4), drawn(40, 4)
    together = nn.RotaryPositions(4)(tl.Tensor(x)).numpy()
    one_by_one = [rotary(tl.Tensor(x[t : t + 1]), t).numpy()[0] for t in range(40)]
    np.testing.assert_array_equal(np.stack(one_by_one), together)
    assert rotary(tl.Tensor(x.astype(np.float32))).numpy().dtype == np.float32
    np.testing.assert_array_equal(rotary(tl.Tensor(x)).numpy(), together)  # not rounded to float32 on the way


def test_gradients_to_second_order():
    tl.gradcheck(lambda x: nn.RotaryPositions(4)(x, 3), drawn(2, 3, 4), order=2)
    attention = nn.MultiHeadAttention(8, 2, rotary=nn.RotaryPositions(4)).astype("float64")
    names, arrays = zip(*[(name, p.numpy()) for name, p in attention.named_parameters()], strict=True)

    def output(x, *parameters):
        return nn.functional_call(attention, dict(zip(names, parameters, strict=True)), x, causal=True)

    tl.gradcheck(output, drawn(1, 3, 8), *arrays, order=2)


def test_self_attention_turns_queries_and_keys_and_not_values():
    attention, x = nn.MultiHeadAttention(8, 2, rotary=nn.RotaryPositions(4)).astype("float64"), drawn(2, 5, 8)
    plain = nn.MultiHeadAttention(8, 2).astype("float64")
    plain.load_state_dict(attention.state_dict())  # rotary positions have no parameters
    q, k, v = (part.numpy() for part in plain.queries_keys_values(tl.Tensor(x)))
    scores = turned(q, 2) @ turned(k, 2).swapaxes(-1, -2) / np.sqrt(4)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = plain.output(tl.Tensor((weights @ v).transpose(0, 2, 1, 3).reshape(2, 5, 8)))
    np.testing.assert_allclose(attention(x).numpy(), expected.numpy(), atol=1e-13)


def test_cross_attention_is_not_turned():
    attention, x = nn.MultiHeadAttention(8, 2, rotary=nn.RotaryPositions(4)), drawn(2, 5, 8).astype(np.float32)
    plain = nn.MultiHeadAttention(8, 2)
    plain.load_state_dict(attention.state_dict())
    np.testing.assert_array_equal(attention(x, x).numpy(), plain(x, x).numpy())
    assert abs(attention(x).numpy() - plain(x).numpy()).max() > 1e-3


def test_impossible_settings_are_refused_with_their_values():
    with pytest.raises(ValueError, match=r"RotaryPositions: the head width must be even, .*; got 5"):
        nn.RotaryPositions(5)
    with pytest.raises(ValueError, match=r"base must be positive, got 0"):
        nn.RotaryPositions(4, base=0)
    with pytest.raises(ValueError, match=r"head width 4, got 8; pass nn\.RotaryPositions\(4\)"):
        nn.MultiHeadAttention(8, 2, rotary=nn.RotaryPositions(8))
    with pytest.raises(TypeError, match=r"rotary must be nn\.RotaryPositions\(4\) or None, got True"):
        nn.MultiHeadAttention(8, 2, rotary=True)
    with pytest.raises(ValueError, match=re.escape("x must have shape (..., 4), got (3, 6)")):
        nn.RotaryPositions(4)(tl.ones((3, 6)))
