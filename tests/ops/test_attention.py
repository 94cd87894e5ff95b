"""Multi-head attention and its masks: values against a loop over heads, gradients to second order."""

import math

import numpy as np
import pytest

import nn
import tensorlib as tl


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def random_attention(width=4, heads=2, seed=3, **options):
    """Return an attention in float64 whose parameters are all away from zero."""
    attention = nn.MultiHeadAttention(width, heads, **options).astype("float64")
    rng = np.random.default_rng(seed)
    attention.load_state_dict({n: 0.7 * rng.standard_normal(a.shape) for n, a in attention.state_dict().items()})
    return attention


def by_hand(attention, x_BTD, memory_BSD, visible_BTS):
    """Return output and weights (B, H, T, S) of `attention` in plain NumPy, one sentence and one head at a time."""
    p = attention.state_dict()
    batch, targets, width = x_BTD.shape
    heads, positions = attention.heads, memory_BSD.shape[1]
    head_width = width // heads
    w_q, w_k, w_v = np.split(p["projection.weight"], 3, axis=1)
    b_q, b_k, b_v = np.split(p["projection.bias"], 3)
    joined = np.zeros((batch, targets, width))
    weights = np.zeros((batch, heads, targets, positions))
    for b, h in np.ndindex(batch, heads):
        columns = slice(h * head_width, (h + 1) * head_width)
        q = (x_BTD[b] @ w_q + b_q)[:, columns]
        k = (memory_BSD[b] @ w_k + b_k)[:, columns]
        v = (memory_BSD[b] @ w_v + b_v)[:, columns]
        for t in range(targets):
            seen = np.flatnonzero(visible_BTS[b, t])
            if len(seen):
                e = np.exp(k[seen] @ q[t] / math.sqrt(head_width))
                weights[b, h, t, seen] = e / e.sum()
        joined[b, :, columns] = weights[b, h] @ v
    return joined @ p["output.weight"] + p["output.bias"], weights


# ---- masks ----


def test_causal_mask_shows_each_position_itself_and_earlier_ones(backend):
    mask = nn.causal_mask(3, backend)
    assert mask.dtype == bool and mask.backend is tl.get_backend(backend)
    np.testing.assert_array_equal(mask.numpy(), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])


def test_padding_mask_shows_the_first_positions_of_each_sentence(backend):
    mask = nn.padding_mask([2, 0, 3], backend=backend)
    assert mask.dtype == bool and mask.shape == (3, 1, 1, 3)
    np.testing.assert_array_equal(mask.numpy()[:, 0, 0], [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(nn.padding_mask([2], longest=4).numpy()[0, 0], [[1, 1, 0, 0]])


def test_masks_combine(backend):
    # Three sentences of three positions: if the axes were confused, only the values would show it.
    mask = nn.causal_mask(3, backend) & nn.padding_mask([3, 1, 2], backend=backend)
    assert mask.shape == (3, 1, 3, 3)
    for b, length in enumerate([3, 1, 2]):
        expected = [[s <= t and s < length for s in range(3)] for t in range(3)]
        np.testing.assert_array_equal(mask.numpy()[b, 0], expected)


# ---- values ----

MASKS = {
    "none": None,
    "causal": np.tri(3, dtype=bool),
    "padding": (np.arange(3) < np.array([3, 1])[:, None])[:, None, None],
    "both": np.tri(3, dtype=bool) & (np.arange(3) < np.array([3, 1])[:, None])[:, None, None],
    "arbitrary": np.random.default_rng(8).random((2, 1, 3, 3)) < 0.5,
    "nothing": np.zeros((1, 1, 3, 3), bool),
}


@pytest.mark.parametrize("mask", MASKS)
def test_self_attention_equals_a_loop_over_heads(mask):
    attention, x = random_attention(6, 3), normal(2, 3, 6)
    visible = MASKS[mask]
    y, weights = attention(tl.Tensor(x), visible=None if visible is None else tl.Tensor(visible), return_weights=True)
    full = np.broadcast_to(True if visible is None else visible, (2, 1, 3, 3))[:, 0]
    expected, expected_weights = by_hand(attention, x, x, full)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(weights.numpy(), expected_weights, rtol=1e-11, atol=1e-13)
    visible_sums = np.broadcast_to(full.any(-1)[:, None], weights.shape[:-1])
    np.testing.assert_allclose(weights.numpy().sum(-1), visible_sums, atol=1e-14)
    assert not weights.numpy()[~np.broadcast_to(full[:, None], weights.shape)].any()


def test_cross_attention_has_queries_of_x_and_keys_and_values_of_memory():
    attention, x, memory = random_attention(4, 2), normal(2, 3, 4), normal(2, 5, 4, seed=2)
    lengths = [5, 2]
    y, weights = attention(tl.Tensor(x), tl.Tensor(memory), nn.padding_mask(lengths), return_weights=True)
    visible = np.broadcast_to(np.arange(5) < np.array(lengths)[:, None, None], (2, 3, 5))
    expected, expected_weights = by_hand(attention, x, memory, visible)
    assert weights.shape == (2, 2, 3, 5)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(weights.numpy(), expected_weights, rtol=1e-11, atol=1e-13)


def test_self_attention_is_cross_attention_to_x_itself():
    attention, x = random_attention(), tl.Tensor(normal(2, 3, 4))
    np.testing.assert_allclose(attention(x).numpy(), attention(x, x).numpy(), rtol=1e-12)


def test_attention_agrees_on_every_backend(backend):
    attention = random_attention().astype("float32")
    x, memory = normal(2, 3, 4).astype(np.float32), normal(2, 5, 4, seed=2).astype(np.float32)
    visible = nn.padding_mask([4, 0], longest=5)

    def run(place):
        attention.to(place).zero_grad()
        inputs = [tl.Tensor(a, requires_grad=True, backend=place) for a in (x, memory)]
        y = attention(inputs[0], inputs[1], visible.to(place)) + attention(inputs[0], visible=nn.causal_mask(3, place))
        (y * y).sum().backward()
        return [t.numpy() for t in (y, *[i.grad for i in inputs], *[p.grad for p in attention.parameters()])]

    for here, there in zip(run("numpy"), run(backend), strict=True):
        assert there.dtype == np.float32
        # The gradient of the key bias is a sum of large numbers that cancel: only rounding errors remain.
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-6 * np.abs(here).max())


@pytest.mark.parametrize(("width", "heads"), [(6, 4), (4, 0), (2, 4)])
def test_heads_must_divide_the_width(width, heads):
    with pytest.raises(ValueError, match=f"heads must divide the width, got width {width} and {heads} heads"):
        nn.MultiHeadAttention(width, heads)


# ---- masks whose axes are not what they seem ----


def padding(*lengths, longest=5):
    return np.arange(longest) < np.array(lengths)[:, None]


def attention_of(queries, keys, visible=None, batch=3, heads=2, **options):
    q, k = (normal(*(n for n in (batch, heads, length, 4) if n), seed=length) for length in (queries, keys))
    return tl.scaled_dot_product_attention(q, k, k, visible, **options)


AXES = [
    (lambda: attention_of(1, 5, causal=True), "as many queries as keys, got 1 and 5; leave it out if this query comes"),
    (lambda: attention_of(2, 5, causal=True), r"got 2 and 5; .* pass visible=nn\.causal_mask\(5\)\[-2:\]"),
    (lambda: attention_of(5, 2, causal=True), r"got 5 and 2; pass visible, a mask \(T, S\)"),
    (lambda: attention_of(4, 5, padding(5, 2, 1)), r"got \(3, 5\); pass visible\[:, None, None\] for padding"),
    (lambda: attention_of(4, 5, padding(5, 2, 1), heads=None), r"pass visible\[:, None\] for padding"),
    (lambda: attention_of(3, 5, padding(2, 5, 1)), r"read as \(T, S\), but .* visible\[None, None\]"),
    (lambda: attention_of(3, 5, padding(2, 5, 1)[:, ::-1]), r"shape \(3, 5\) would be read as \(T, S\)"),
    (lambda: attention_of(3, 5, padding(2, 5, 1), heads=None), r"visible\[:, None\] for padding .* or visible\[None\]"),
    (lambda: attention_of(4, 5, np.ones((3, 4, 5), bool)), r"got \(3, 4, 5\); pass visible\[:, None\] for \(B, T"),
    (lambda: attention_of(4, 5, np.ones((2, 4, 5), bool)), r"must have all axes of the scores, \(3, 2, 4, 5\)"),
    (lambda: nn.MultiHeadAttention(4, 2)(normal(1, 1, 4), normal(1, 5, 4), causal=True), "keys, got 1 and 5"),
]  # fmt: skip


@pytest.mark.parametrize(("use", "message"), AXES)
def test_shapes_that_could_mean_something_else_are_refused(use, message):
    with pytest.raises(ValueError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "visible",
    [padding(2, 5, 1)[:, None, None], padding(2, 5, 1)[None, None], padding(1, 2, 3), nn.causal_mask(5)[-3:],
     np.tri(3, 5, 1, bool) & ~np.tri(3, 5, -1, bool), padding(3, 3, 3), padding(4)[0], padding(2, 5, 1)[None]],
    ids=["(B, 1, 1, S)", "(1, 1, T, S)", "later sees more", "cache", "band", "all alike", "(S,)", "(1, T, S)"],
)  # fmt: skip
def test_masks_with_as_many_sentences_as_queries_have_their_meaning(visible):
    """Three sentences, three queries: the value equals that of the mask written out with all its axes."""
    full = np.asarray(visible) & np.ones((3, 2, 3, 5), bool)
    q, k, v = normal(3, 2, 3, 4), normal(3, 2, 5, 4, seed=2), normal(3, 2, 5, 4, seed=3)
    weights = np.where(full, np.exp(q @ k.swapaxes(-1, -2) / 2), 0)
    expected = weights / weights.sum(-1, keepdims=True) @ v
    found = tl.scaled_dot_product_attention(q, k, v, visible)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_queries_after_a_cache_see_what_they_saw_in_the_whole_sequence():
    q, k, v = (normal(2, 2, 5, 4, seed=s) for s in (1, 2, 3))
    whole = tl.scaled_dot_product_attention(q, k, v, causal=True).numpy()
    last = tl.scaled_dot_product_attention(q[:, :, -2:], k, v, nn.causal_mask(5)[-2:]).numpy()
    np.testing.assert_allclose(last, whole[:, :, -2:], rtol=1e-12)
    np.testing.assert_allclose(
        tl.scaled_dot_product_attention(q[:, :, -1:], k, v).numpy(), whole[:, :, -1:], rtol=1e-12
    )


# ---- a query that sees nothing ----


def test_attention_over_nothing_gives_zeros_and_zero_gradients():
    q, k, v = [tl.Tensor(normal(1, 2, 3, 4, seed=s), requires_grad=True) for s in (1, 2, 3)]
    visible = np.ones((3, 3), bool)
    visible[1] = False
    y = tl.scaled_dot_product_attention(q, k, v, visible)
    assert not y.numpy()[..., 1, :].any() and y.numpy()[..., 0, :].all()
    y.backward(tl.Tensor(normal(1, 2, 3, 4)))
    assert not q.grad.numpy()[..., 1, :].any()
    assert all(np.isfinite(t.grad.numpy()).all() and t.grad.numpy().any() for t in (q, k, v))


def test_multi_head_attention_over_nothing_gives_the_bias_and_finite_gradients():
    attention, x = random_attention(), tl.Tensor(normal(2, 3, 4), requires_grad=True)
    y = attention(x, visible=nn.padding_mask([3, 0]))
    bias = attention.output.bias.numpy()
    np.testing.assert_array_equal(y.numpy()[1], np.broadcast_to(bias, (3, 4)))
    (y * y).sum().backward()
    assert not x.grad.numpy()[1].any()
    assert all(np.isfinite(p.grad.numpy()).all() for p in attention.parameters())


# ---- gradients ----


def seen(rows):
    return tl.Tensor(np.array(rows, bool))


@pytest.mark.parametrize(
    ("shapes", "visible"),
    [
        ([(2, 3, 4)], None),
        ([(2, 3, 4)], nn.causal_mask(3)),
        ([(2, 2, 4)], nn.causal_mask(2) & nn.padding_mask([2, 1])),
        ([(1, 2, 4), (1, 3, 4)], None),
        ([(2, 2, 4), (2, 3, 4)], nn.padding_mask([3, 1])),
        ([(1, 2, 4), (1, 2, 4)], seen([[1, 0], [0, 0]])),
    ],
    ids=["self", "self causal", "self causal padded", "cross", "cross padded", "cross with a blind query"],
)
def test_attention_passes_gradcheck_to_second_order(shapes, visible):
    attention = random_attention()
    state = attention.state_dict()

    def multi_head_attention(*tensors):
        inputs = tensors[len(state) :]
        memory = inputs[1] if len(inputs) == 2 else None
        parameters = dict(zip(state, tensors, strict=False))
        return nn.functional_call(attention, parameters, inputs[0], memory, visible)

    result = tl.gradcheck(multi_head_attention, *state.values(), *[normal(*s, seed=i) for i, s in enumerate(shapes)])
    assert result.first < 1e-7 and result.second < 1e-6


def test_attention_weights_are_differentiable_too():
    attention, x = random_attention(), normal(1, 3, 4)
    tl.gradcheck(lambda x: attention(x, visible=nn.causal_mask(3), return_weights=True), x)


# ---- dropout ----


def test_dropout_acts_on_the_weights_in_training_only():
    attention, x = random_attention(dropout=0.5), tl.Tensor(normal(2, 3, 4))
    tl.seed(0)
    trained, weights = attention(x, return_weights=True)
    tl.seed(0)
    np.testing.assert_allclose(attention(x).numpy(), trained.numpy(), rtol=1e-13)  # computed differently, by a kernel
    np.testing.assert_allclose(weights.numpy().sum(-1), 1)  # the weights before dropout
    evaluated = attention.eval()(x).numpy()
    assert not np.allclose(trained.numpy(), evaluated)
    np.testing.assert_array_equal(attention(x).numpy(), evaluated)
    np.testing.assert_allclose(evaluated, by_hand(attention, x.numpy(), x.numpy(), np.ones((2, 3, 3), bool))[0])


@pytest.mark.filterwarnings("error")
def test_large_values_do_not_overflow_on_the_way():
    q, k, v = tl.Tensor([[8.0]]), tl.Tensor([[7.0], [7.0]]), tl.Tensor([[1e15], [1e15]])
    np.testing.assert_allclose(tl.scaled_dot_product_attention(q, k, v).numpy(), 1e15, rtol=1e-6)
    np.testing.assert_allclose(tl.scaled_dot_product_attention(-q, k, v * 1e-37).numpy(), 1e-22, rtol=1e-5)


def test_kernel_and_formula_draw_the_same_dropout_mask():
    """Also if several values share the weights of q and k."""
    q, k, v = (tl.Tensor(normal(*shape)) for shape in ((3, 2), (4, 2), (5, 4, 3)))
    options = {"dropout": 0.5, "generator": tl.Generator(7)}
    kernel = tl.scaled_dot_product_attention(q, k, v, **options)
    options["generator"] = tl.Generator(7)
    formula, _ = tl.scaled_dot_product_attention(q, k, v, return_weights=True, **options)
    np.testing.assert_allclose(kernel.numpy(), formula.numpy(), rtol=1e-12)


# ---- formulas that the samples of the op table do not reach ----


def test_heads_of_width_one_are_scaled_by_one():
    q, k, v = normal(3, 1), normal(4, 1, seed=2), normal(4, 2, seed=3)
    e = np.exp(q @ k.T)
    y = tl.scaled_dot_product_attention(q, k, v)
    np.testing.assert_allclose(y.numpy(), e / e.sum(-1, keepdims=True) @ v, rtol=1e-12)
    tl.gradcheck(tl.scaled_dot_product_attention, q, k, v)


def test_float16_is_computed_in_float32(backend):
    """Scores of about 100, rounded to float16, would be wrong by 0.03, and the weights by 3 %."""
    arrays = [3 * normal(4, 4, 64, 8, seed=n) for n in (1, 2, 3)]
    visible = tl.Tensor(np.tri(64, 64, 1, dtype=bool), backend=backend)

    def attend(dtype):
        qkv = [tl.Tensor(a.astype("float16"), dtype=dtype, requires_grad=True, backend=backend) for a in arrays]
        y = tl.scaled_dot_product_attention(*qkv, visible)
        _, weights = tl.scaled_dot_product_attention(*qkv, visible, return_weights=True)
        return y, weights, *tl.grad(y.sum(), qkv)

    for half, single in zip(attend("float16"), attend("float32"), strict=True):
        assert half.dtype == np.float16
        np.testing.assert_array_equal(half.numpy(), single.numpy().astype("float16"))


def test_float16_has_the_second_derivatives_of_float32():
    arrays = [normal(3, 2, seed=n).astype("float16") for n in (1, 2, 3)]

    def curvature(dtype):
        q, k, v = (tl.Tensor(a, dtype=dtype, requires_grad=True) for a in arrays)
        (dq,) = tl.grad(tl.scaled_dot_product_attention(q, k, v).square().sum(), [q], create_graph=True)
        return [d.numpy() for d in tl.grad(dq.square().sum(), [q, k, v])]

    for half, single in zip(curvature("float16"), curvature("float32"), strict=True):
        np.testing.assert_allclose(half, single, rtol=0, atol=0.02 * np.abs(single).max())


def test_the_gradient_of_the_values_alone_is_differentiable():
    """Since dv = weights^T dy, d<dv, u>/d(dy) = weights u."""
    q, k, v, u = (normal(3, 2, seed=n) for n in (1, 2, 3, 4))
    v, dy = tl.Tensor(v, requires_grad=True), tl.Tensor(normal(3, 2, seed=5), requires_grad=True)
    (dv,) = tl.grad(tl.scaled_dot_product_attention(q, k, v), [v], dy, create_graph=True)
    (slope,) = tl.grad((dv * u).sum(), [dy])
    _, weights = tl.scaled_dot_product_attention(q, k, v, return_weights=True)
    np.testing.assert_allclose(slope.numpy(), weights.numpy() @ u, rtol=1e-12)
