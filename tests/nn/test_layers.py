"""Layers, positions and initializers: values against plain NumPy, gradients to second order, dropout's statistics."""

import math

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import init
from nn.positions import sinusoids
from tests.edges import refused
from tests.strict import STRICT


def gradcheck_module(module, *inputs, call=nn.functional_call):
    """Check to second order with respect to every parameter of `module` (in float64) and every floating input."""
    module.astype("float64")
    # Biases start at zero and norms at one, where a wrong gradient could go unnoticed.
    rng = np.random.default_rng(5)
    state = {name: array + 0.3 * rng.standard_normal(array.shape) for name, array in module.state_dict().items()}

    def f(*arrays):
        return call(module, dict(zip(state, arrays, strict=False)), *arrays[len(state) :])

    return tl.gradcheck(f, *state.values(), *inputs, name=type(module).__name__)


def normal(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


# ---- values ----


def test_linear_is_x_w_plus_b(backend):
    linear = nn.Linear(3, 4).to(backend)
    x = normal(2, 5, 3).astype(np.float32)
    linear.bias.replace(linear.bias.data + 0.5)
    y = linear(tl.Tensor(x, backend=backend)).numpy()
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, x @ linear.weight.numpy() + linear.bias.numpy(), rtol=1e-5, atol=1e-6)
    assert linear.weight.shape == (3, 4) and linear.bias.shape == (4,)
    assert [name for name, _ in nn.Linear(3, 4, bias=False).named_parameters()] == ["weight"]


def test_layers_take_lists_and_arrays_like_tensors(backend):
    x = [[1.0, -2.0, 3.0]]
    for layer in (nn.Linear(3, 2), nn.LayerNorm(3), nn.FeedForward(3, 4)):
        layer.to(backend)
        expected = layer(tl.Tensor(x, backend=backend)).numpy()
        np.testing.assert_array_equal(layer(x).numpy(), expected)
        np.testing.assert_array_equal(layer(tl.Tensor(x, backend=backend).data).numpy(), expected)


def test_a_layer_in_a_model_is_named_by_its_path():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.LayerNorm(4)))
    with pytest.raises(ValueError, match=r"LayerNorm 1\.0: x must have shape \(\.\.\., 4\), got \(5, 3\)"):
        model(tl.zeros((5, 2)))


def test_embedding_picks_rows_and_adds_up_their_gradients(backend):
    embedding = nn.Embedding(5, 3).to(backend)
    ids = np.array([[1, 4, 1], [0, 1, 4]])
    y = embedding(ids)
    np.testing.assert_array_equal(y.numpy(), embedding.weight.numpy()[ids])
    dy = normal(2, 3, 3).astype(np.float32)
    y.backward(tl.Tensor(dy, backend=backend))
    expected = np.zeros((5, 3), np.float32)
    for position in np.ndindex(ids.shape):
        expected[ids[position]] += dy[position]
    np.testing.assert_allclose(embedding.weight.grad.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("bad", [5, -1])
def test_embedding_refuses_ids_outside_the_table(bad, backend):
    with pytest.raises(IndexError, match=rf"token id {bad} at position \(0, 1\) is outside the vocabulary of 5"):
        nn.Embedding(5, 3).to(backend)(np.array([[1, bad]]))


def test_layer_norm_normalizes_the_last_axis(backend):
    norm = nn.LayerNorm(6).to(backend)
    weight, bias = normal(6, seed=2).astype(np.float32), normal(6, seed=3).astype(np.float32)
    norm.load_state_dict({"weight": weight, "bias": bias})
    x = 3 + 10 * normal(4, 2, 6).astype(np.float32)
    y = norm(tl.Tensor(x, backend=backend)).numpy()
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5) * weight + bias, rtol=1e-4, atol=1e-5)
    assert nn.LayerNorm(6).eps == 1e-5


def test_layer_norm_of_a_constant_row_is_the_bias():
    y = nn.LayerNorm(4)(tl.full((2, 4), 7.0)).numpy()
    np.testing.assert_array_equal(y, 0)


def test_feed_forward_is_relu_between_two_linears(backend):
    ffn = nn.FeedForward(3, 5, dropout=0.5).to(backend).eval()
    x = normal(2, 4, 3).astype(np.float32)
    p = ffn.state_dict()
    hidden = np.maximum(x @ p["hidden.weight"] + p["hidden.bias"], 0)
    expected = hidden @ p["output.weight"] + p["output.bias"]
    np.testing.assert_allclose(ffn(tl.Tensor(x, backend=backend)).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_cross_entropy_loss_smooths_and_ignores_padding():
    logits, targets = normal(2, 3, 5), np.array([[1, 4, 0], [2, 0, 0]])
    loss = nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.2)(tl.Tensor(logits), targets).item()
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    q = np.eye(5)[targets] * 0.8 + 0.2 / 5
    expected = -(q * log_probs).sum(-1)[targets != 0].mean()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert nn.CrossEntropyLoss(ignore_index=0)(tl.Tensor(logits), np.zeros((2, 3), int)).item() == 0


# ---- gradients ----


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (lambda: nn.Linear(3, 2), [normal(2, 2, 3)]),
        (lambda: nn.Linear(3, 2, bias=False), [normal(3)]),
        (lambda: nn.LayerNorm(4), [normal(2, 2, 4)]),
        (lambda: nn.FeedForward(3, 4), [normal(2, 2, 3)]),
        (lambda: nn.LearnedPositions(2, 4), [normal(2, 3, 2)]),
        (lambda: nn.SinusoidalPositions(2), [normal(1, 3, 2)]),
    ],
)
def test_layers_pass_gradcheck_to_second_order(module, inputs):
    gradcheck_module(module(), *inputs)


def test_embedding_passes_gradcheck_to_second_order():
    ids = np.array([[0, 2, 2], [1, 0, 2]])

    def squared_rows(module, parameters):
        return nn.functional_call(module, parameters, ids) ** 3  # the lookup alone has no second derivative

    gradcheck_module(nn.Embedding(4, 2), call=squared_rows)


def test_cross_entropy_loss_passes_gradcheck_to_second_order():
    loss = nn.CrossEntropyLoss(ignore_index=3, label_smoothing=0.1)
    tl.gradcheck(lambda logits: loss(logits, np.array([[0, 3, 2], [1, 1, 3]])), normal(2, 3, 4))


# ---- positions ----


def test_sinusoids_are_the_formula_of_the_paper():
    table = sinusoids(50, 8)
    assert table.shape == (50, 8)
    for t, i in [(0, 0), (1, 0), (7, 2), (49, 3)]:
        angle = t / 10000 ** (2 * i / 8)
        assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-15)
        assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-15)


def test_sinusoidal_positions_have_no_limit_and_depend_on_the_position_alone(backend):
    positions = nn.SinusoidalPositions(6, prepared=4).to(backend)
    assert not list(positions.parameters())
    x = tl.zeros((1, 9, 6), backend=backend)
    y = positions(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.numpy()[0], sinusoids(9, 6), atol=1e-6)
    np.testing.assert_array_equal(positions(x[:, :3]).numpy(), y.numpy()[:, :3])
    np.testing.assert_array_equal(positions(x[:, :2], start=6).numpy(), y.numpy()[:, 6:8])


def test_positions_beyond_the_prepared_ones_are_the_same_numbers_in_float64():
    # If only prepared rows were rounded to float32, the two would differ by 1e-8.
    positions = nn.SinusoidalPositions(6, prepared=4).astype("float64")
    x = tl.zeros((1, 9, 6), dtype="float64")
    np.testing.assert_array_equal(positions(x[:, :4]).numpy(), positions(x).numpy()[:, :4])


def test_a_sequence_longer_than_the_learned_positions_is_refused():
    positions = nn.LearnedPositions(2, longest=4)
    x = tl.zeros((1, 2, 2))
    np.testing.assert_array_equal(positions(x, start=2).numpy()[0], positions.weight.numpy()[2:])
    with pytest.raises(ValueError, match="LearnedPositions: has 4 positions, got a sequence that ends at 5"):
        positions(x, start=3)


# ---- initializers ----


@pytest.mark.parametrize(
    ("draw", "variance"),
    [
        (lambda g: init.normal((300, 200), 0.7, g), 0.49),
        (lambda g: init.uniform((300, 200), 0.6, g), 0.36 / 3),
        (lambda g: init.xavier_uniform((300, 200), g), 2 / 500),
        (lambda g: init.xavier_uniform((300, 200), g, gain=3.0), 18 / 500),
        (lambda g: init.xavier_normal((300, 200), g), 2 / 500),
        (lambda g: init.kaiming_uniform((300, 200), g), 2 / 300),
        (lambda g: init.kaiming_normal((300, 200), g), 2 / 300),
        (lambda g: init.lecun_normal((300, 200), g), 1 / 300),
        (lambda g: nn.Linear(300, 200, generator=g).weight.numpy(), 2 / 500),
        (lambda g: nn.Embedding(300, 200, g).weight.numpy(), 1 / 200),
        (lambda g: nn.MultiHeadAttention(200, 4, generator=g).projection.weight.numpy(), 2 / 400),
        (lambda g: nn.MultiHeadAttention(200, 4, generator=g).output.weight.numpy(), 2 / 400),
    ],
)
def test_initializers_have_the_variance_of_their_papers(draw, variance):
    values = draw(tl.Generator(3))
    assert values.dtype == np.float32
    # 40,000 numbers or more: the standard error of the variance is under 1 %, that of the mean under 0.5 % of the std.
    assert values.var() == pytest.approx(variance, rel=0.03)
    assert abs(values.mean()) < 0.02 * math.sqrt(variance)
    np.testing.assert_array_equal(values, draw(tl.Generator(3)))
    assert not np.array_equal(values, draw(tl.Generator(4)))


def test_biases_start_at_zero_and_norms_at_the_identity():
    assert not nn.Linear(3, 4).bias.numpy().any()
    assert not nn.MultiHeadAttention(4, 2).projection.bias.numpy().any()
    np.testing.assert_array_equal(nn.LayerNorm(3).weight.numpy(), 1)
    assert not nn.LayerNorm(3).bias.numpy().any()


# ---- dropout ----


def test_dropout_keeps_the_mean_and_zeroes_a_fraction_p(backend):
    tl.seed(1)
    y = nn.Dropout(0.3)(tl.ones((200, 500), backend=backend)).numpy()
    assert y.dtype == np.float32
    dropped = (y == 0).mean()
    assert dropped == pytest.approx(0.3, abs=0.006)  # four standard errors
    np.testing.assert_allclose(y[y != 0], 1 / 0.7, rtol=1e-4)
    assert y.mean() == pytest.approx(1, abs=0.01)


def test_dropout_has_the_same_mask_backward_as_forward_and_a_new_one_each_call(backend):
    tl.seed(2)
    dropout = nn.Dropout(0.5)
    x = tl.Tensor(np.ones((20, 30), np.float32), requires_grad=True, backend=backend)
    first, second = dropout(x), dropout(x)
    assert not np.array_equal(first.numpy(), second.numpy())
    for y in (second, first):  # in any order of the backward passes
        x.grad = None
        y.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), y.numpy())


def test_dropout_is_the_identity_in_evaluation_and_at_zero():
    x = tl.Tensor([[1.0, 2.0]])
    assert nn.Dropout(0.9).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


def test_dropout_draws_from_its_own_generator_or_from_the_seeded_one(backend):
    x = tl.ones((8, 9), backend=backend)
    tl.seed(7)
    a = nn.Dropout(0.5)(x).numpy()
    b = nn.Dropout(0.5)(x).numpy()
    tl.seed(7)
    np.testing.assert_array_equal(nn.Dropout(0.5)(x).numpy(), a)
    own = nn.Dropout(0.5, tl.Generator(7))  # the same seed; the default generator does not advance
    np.testing.assert_array_equal(own(x).numpy(), a)
    np.testing.assert_array_equal(nn.Dropout(0.5)(x).numpy(), b)


# ---- mistakes ----

X = tl.zeros((2, 3, 4))
IDS = np.array([[0, 1]])
STRANGE = tl.zeros((2, 3, 4), backend=STRICT)
LOGITS = tl.zeros((2, 5))

BAD = [
    (lambda: nn.Linear(3, -4), ValueError, "Linear: out_width must be an integer of at least 1, got -4"),
    (lambda: nn.Linear(0, 4), ValueError, "Linear: in_width must be an integer of at least 1, got 0"),
    (lambda: nn.Linear(3, 4.0), TypeError, r"Linear: out_width must be an integer of at least 1, got 4\.0"),
    (lambda: nn.Linear((3, 4), 2), TypeError, r"in_width must be an integer of at least 1, got \(3, 4\)"),
    (lambda: nn.Linear(3, 4, 0.1), TypeError, r"Linear: bias must be True or False, got 0\.1; name your arguments"),
    (lambda: nn.Linear(3, 4, generator=7), TypeError, r"must be a tl\.Generator, got 7; pass tl\.Generator\(7\)"),
    (lambda: nn.Linear(5, 2)(X), ValueError, r"Linear: x must .* 5\), got \(2, 3, 4\); .* Linear with width 4$"),
    (lambda: nn.Linear(5, 4)(X), ValueError, r"got \(2, 3, 4\); did you mean Linear\(4, 5\)\? An embedding's weight"),
    (lambda: nn.Linear(12, 4)(X), ValueError, r"\(\.\.\., 12\), got \(2, 3, 4\); did you mean x\.flatten\(1\)\?"),
    (lambda: nn.SinusoidalPositions(4)(X[0]), ValueError, r"got \(3, 4\); for a batch of one, pass x\[None\]"),
    (lambda: nn.Linear(3, 4)(X), ValueError, r"got \(2, 3, 4\); did you mean x\.swapaxes\(-1, -2\)\?"),
    (lambda: nn.Linear(1, 4)(1.0), ValueError, r"Linear: x must have shape \(\.\.\., 1\), got \(\)"),
    (lambda: nn.Linear(2, 4)(IDS), TypeError, "Linear: x must be of a floating dtype, got int64; embed ids"),
    (lambda: nn.Linear(4, 4)(nn.Linear), TypeError, "Linear: x must be numbers, got the class Linear; call it first"),
    (lambda: nn.Linear(4, 4)(None), TypeError, "Linear: x must be numbers, got NoneType"),
    (lambda: nn.Linear(4, 4)((X,)), TypeError, r"Linear: x must be one Tensor or array, got a tuple of 1; pass one"),
    (lambda: nn.functional_call(nn.Linear(4, 4), {}, (X,)), TypeError, "x must be one Tensor .* a tuple of 1"),
    (lambda: nn.Embedding(9, 4)([tl.Tensor(IDS)]), TypeError, "Embedding: ids must be one Tensor .* a list of 1"),
    (lambda: setattr(nn.Linear(4, 4), "weight", nn.Embedding(4, 4).weight.T), TypeError, "belongs in forward, as in"),
    (lambda: nn.Linear(4, 4)(STRANGE), TypeError, "linear: operands must be on one backend, got strict and numpy"),
    (lambda: nn.Embedding(-5, 3), ValueError, "Embedding: vocabulary must be an integer of at least 1, got -5"),
    (lambda: nn.Embedding(5, 0), ValueError, "Embedding: width must be an integer of at least 1, got 0"),
    (lambda: nn.Embedding("words", 3), TypeError, "Embedding: vocabulary must be an integer .* got 'words'"),
    (lambda: nn.Embedding(5, 3)(IDS + 0.5), TypeError, "embedding: token ids must be integers, got dtype float64"),
    (lambda: nn.Embedding(5, 3)(IDS > 0), TypeError, "embedding: token ids must be integers, got dtype bool"),
    (lambda: nn.Embedding(5, 3)([[0, 7]]), IndexError, r"token id 7 at position \(0, 1\) is outside .* 5"),
    (lambda: nn.LayerNorm(-1), ValueError, "LayerNorm: width must be an integer of at least 1, got -1"),
    (lambda: nn.LayerNorm((3, 4)), TypeError, r"LayerNorm: width must be an integer of at least 1, got \(3, 4\)"),
    (lambda: nn.LayerNorm(4, eps=0), ValueError, "LayerNorm: eps must be positive, got 0"),
    (lambda: nn.LayerNorm(4, eps="small"), TypeError, "eps must be positive, got 'small', which is not a number"),
    (lambda: nn.LayerNorm(3)(X), ValueError, r"LayerNorm: x must have shape \(\.\.\., 3\), got \(2, 3, 4\)"),
    (lambda: nn.LayerNorm(2)(IDS), TypeError, "LayerNorm: x must be of a floating dtype, got int64"),
    (lambda: nn.LayerNorm(1)(2.0), ValueError, r"LayerNorm: x must have shape \(\.\.\., 1\), got \(\)"),
    (lambda: nn.Dropout(-0.1), ValueError, r"Dropout: p must lie in \[0, 1\), got -0\.1"),
    (lambda: nn.Dropout(1.0), ValueError, r"Dropout: p must lie in \[0, 1\), got 1\.0"),
    (lambda: nn.Dropout(50), ValueError, r"Dropout: p must lie in \[0, 1\), got 50"),
    (lambda: nn.Dropout(math.nan), ValueError, r"Dropout: p must lie in \[0, 1\), got nan"),
    (lambda: nn.Dropout(None), TypeError, r"p must lie in \[0, 1\), got None, which is not a number"),
    (lambda: nn.Dropout(0.5, 42), TypeError, r"Dropout: generator must be a tl\.Generator, got 42"),
    (lambda: nn.Dropout(0.5)(IDS), TypeError, "dropout: x must be of a floating dtype, got int64"),
    (lambda: nn.FeedForward(-4, 8), ValueError, "FeedForward: width must be an integer of at least 1, got -4"),
    (lambda: nn.FeedForward(4, 0), ValueError, "FeedForward: hidden_width must be an integer of at least 1, got 0"),
    (lambda: nn.FeedForward(4, 8, dropout=2), ValueError, r"FeedForward: dropout must lie in \[0, 1\), got 2"),
    (lambda: nn.FeedForward(4, 8, generator="x"), TypeError, r"generator must be a tl\.Generator, got 'x'"),
    (lambda: nn.FeedForward(5, 8)(X), ValueError, r"FeedForward: x must have shape .*, 5\), got \(2, 3, 4\)"),
    (lambda: nn.FeedForward(2, 8)(IDS), TypeError, "FeedForward: x must be of a floating dtype, got int64"),
    (lambda: nn.MultiHeadAttention(6, 4), ValueError, "heads must divide the width, got width 6 and 4 heads"),
    (lambda: nn.MultiHeadAttention(6, -2), ValueError, "heads must be an integer of at least 0, got -2"),
    (lambda: nn.MultiHeadAttention(0, 1), ValueError, "MultiHeadAttention: width must be an integer .* got 0"),
    (lambda: nn.MultiHeadAttention(4, 2.0), TypeError, r"heads must be an integer of at least 0, got 2\.0"),
    (lambda: nn.MultiHeadAttention(4, 2, dropout=1), ValueError, r"dropout must lie in \[0, 1\), got 1"),
    (lambda: nn.MultiHeadAttention(4, 2)(X[0]), ValueError, r"x must have shape \(B, T, 4\), got \(3, 4\)"),
    (lambda: nn.MultiHeadAttention(6, 2)(X), ValueError, r"x must have shape \(B, T, 6\), got \(2, 3, 4\)"),
    (lambda: nn.MultiHeadAttention(4, 2)(X, X[..., :2]), ValueError, r"memory must .* \(B, S, 4\), got \(2, 3, 2\)"),
    (
        lambda: nn.MultiHeadAttention(4, 2)(X, tl.zeros((5, 3, 4))),
        ValueError,
        r"x and memory must have the same batch size, got \(2, 3, 4\) and \(5, 3, 4\)",
    ),
    (lambda: nn.MultiHeadAttention(4, 2)(X, visible=np.ones((3, 3))), TypeError, "visible must be boolean.*float64"),
    (
        lambda: nn.MultiHeadAttention(4, 2)(X, visible=nn.causal_mask(5)),
        ValueError,
        r"visible must broadcast to \(2, 2, 3, 3\), got \(5, 5\)",
    ),
    (
        lambda: nn.MultiHeadAttention(4, 2)(X, X, X),
        TypeError,
        r"visible must be a boolean mask, got .* \(2, 3, 4\) and dtype float32; call attention\(x, memory\)",
    ),
    (lambda: nn.MultiHeadAttention(4, 2)(X, visible=np.ones((3, 3), int)), TypeError, "int64; compare first: x != 0"),
    (lambda: nn.causal_mask(-1), ValueError, "causal_mask: length must be an integer of at least 0, got -1"),
    (lambda: nn.causal_mask(X), TypeError, "causal_mask: length must be an integer of at least 0, got Tensor"),
    (lambda: nn.causal_mask(3, "cud"), ValueError, "backend: .* got 'cud'"),
    (lambda: nn.padding_mask([2, -1]), ValueError, r"lengths must lie in \[0, 2\], got -1 for sentence 1"),
    (lambda: nn.padding_mask([2, 5], longest=4), ValueError, r"lengths must lie in \[0, 4\], got 5 for sentence 1"),
    (lambda: nn.padding_mask([2.0]), ValueError, "one integer for each sentence, got .* dtype float64"),
    (lambda: nn.padding_mask(IDS), ValueError, r"one integer for each sentence, got shape \(1, 2\)"),
    (lambda: nn.padding_mask(IDS), ValueError, r"int64; for ids, pass visible=\(ids != padding\)\[:, None, None\]"),
    (lambda: nn.padding_mask(3), ValueError, r"one integer for each sentence, got shape \(\)"),
    (lambda: nn.padding_mask([1], longest=-1), ValueError, "padding_mask: longest must be .* got -1"),
    (lambda: sinusoids(3, 7), ValueError, "sinusoids: the width must be even.* got 7"),
    (lambda: sinusoids(-3, 4), ValueError, "sinusoids: length must be an integer of at least 0, got -3"),
    (lambda: sinusoids(3, 4, start=-1), ValueError, "sinusoids: start must be an integer of at least 0, got -1"),
    (lambda: nn.SinusoidalPositions(7), ValueError, "the width must be even.* got 7"),
    (lambda: nn.SinusoidalPositions(4, prepared=0), ValueError, "SinusoidalPositions: prepared must be .* got 0"),
    (lambda: nn.SinusoidalPositions(4)(X[0]), ValueError, r"x must have shape \(B, T, 4\), got \(3, 4\)"),
    (lambda: nn.SinusoidalPositions(6)(X), ValueError, r"x must have shape \(B, T, 6\), got \(2, 3, 4\)"),
    (lambda: nn.SinusoidalPositions(4)(X, start=-1), ValueError, "SinusoidalPositions: start must be .* got -1"),
    (lambda: nn.LearnedPositions(4, 0), ValueError, "LearnedPositions: longest must be .* at least 1, got 0"),
    (lambda: nn.LearnedPositions(4, 9)(X[0]), ValueError, r"x must have shape \(B, T, 4\), got \(3, 4\)"),
    (lambda: nn.LearnedPositions(1, 9)(X), ValueError, r"x must have shape \(B, T, 1\), got \(2, 3, 4\)"),
    (lambda: nn.LearnedPositions(4, 9)(X, start=-1), ValueError, "LearnedPositions: start must be .* got -1"),
    (lambda: nn.LearnedPositions(4, 9)(X, start=8), ValueError, "has 9 positions, got a sequence that ends at 11"),
    (lambda: nn.CrossEntropyLoss(reduction="avg")(LOGITS, [0, 1]), ValueError, "reduction must be .* got 'avg'"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=1.5)(LOGITS, [0, 1]), ValueError, r"label_smoothing .* got 1\.5"),
    (lambda: nn.CrossEntropyLoss()(LOGITS, [0, 5]), IndexError, "target 5 at position .* outside the 5 classes"),
    (lambda: nn.CrossEntropyLoss()(LOGITS, [0.0, 1.0]), TypeError, "targets must be integers.* got dtype float32"),
    (lambda: nn.CrossEntropyLoss()(LOGITS, [[0, 1]]), ValueError, r"targets must have the shape .* got \(1, 2\)"),
    (lambda: nn.CrossEntropyLoss(LOGITS, [0, 1]), TypeError, r"shape \(2, 5\) .*: nn\.CrossEntropyLoss\(\)\(logits, t"),
    (lambda: nn.CrossEntropyLoss()(LOGITS, [[0], [1]]), ValueError, r"got \(2, 1\); drop the last axis"),
    (lambda: nn.CrossEntropyLoss()(nn.Linear(1, 1), [0]), TypeError, "data must be numbers, got Linear; call it"),
    (lambda: init.normal((2, 3), -1.0), ValueError, r"normal: std must not be negative, got -1\.0"),
    (lambda: init.normal((2, -3), 1.0), ValueError, "normal: size must be an integer of at least 0, got -3"),
    (lambda: init.normal((2, 3.0), 1.0), TypeError, r"normal: size must be an integer of at least 0, got 3\.0"),
    (lambda: init.normal((2, 3), 1.0, 5), TypeError, r"normal: generator must be a tl\.Generator, got 5"),
    (lambda: init.uniform((2, 3), math.inf), ValueError, "uniform: bound must be finite, got inf"),
    (lambda: init.uniform((2, 3), "wide"), TypeError, "uniform: bound must not be negative, got 'wide'"),
    (lambda: init.xavier_uniform(5), ValueError, r"xavier_uniform: shape must be \(in, \.\.\., out\), got 5"),
    (lambda: init.xavier_uniform((5,)), ValueError, r"xavier_uniform: shape must be \(in, \.\.\., out\), got \(5,\)"),
    (lambda: init.xavier_normal((5, 3), gain=-2.0), ValueError, r"xavier_normal: gain must not be negative, got -2\.0"),
    (lambda: init.kaiming_uniform((0, 3)), ValueError, "kaiming_uniform: fan_in must be .* at least 1, got 0"),
    (lambda: init.kaiming_normal(()), ValueError, r"kaiming_normal: shape must be .* got \(\)"),
    (lambda: init.lecun_normal((-2, 3)), ValueError, "lecun_normal: fan_in must be .* at least 1, got -2"),
]  # fmt: skip


test_mistakes_are_named_with_what_was_given = refused(BAD)


def test_a_padding_mask_takes_lengths_from_any_backend(backend):
    lengths = tl.Tensor([2, 0], backend=backend)
    np.testing.assert_array_equal(nn.padding_mask(lengths).numpy()[:, 0, 0], [[1, 1], [0, 0]])
    assert nn.padding_mask([], backend=backend).shape == (0, 1, 1, 0)


# ---- sub-layers as one op ------------------------------------------------------------------------------------------


def ops_of(y):
    """Return the names of the ops that y was computed by."""
    found, stack = set(), [y.node]
    while stack:
        node = stack.pop()
        if isinstance(node, tl.Function):
            found.add(node.name)
            stack += [edge[0] for edge in node.edges if edge]
    return found


class Doubled(nn.MultiHeadAttention):
    def attend(self, *args, **kwargs):
        return super().attend(*args, **kwargs) * 2.0


def test_a_sub_layer_is_one_op_and_its_formula_gives_the_same():
    x, memory = (tl.normal((2, 3, 8), generator=tl.Generator(i)) for i in range(2))
    feed_forward, attention = nn.FeedForward(8, 12), nn.MultiHeadAttention(8, 2)
    visible = nn.padding_mask([3, 2])
    for compute, ops in (
        (lambda: feed_forward(x), {"feed_forward"}),
        (lambda: attention(x, visible=visible), {"self_attention"}),
        (lambda: attention(x, causal=True), {"self_attention"}),
        (lambda: attention(x, memory, visible), {"cross_attention"}),
    ):
        y = compute()
        with tl.record_formulas():
            composed = compute()
        assert ops_of(y) == ops and "linear" in ops_of(composed) and len(ops_of(composed)) > 1
        np.testing.assert_allclose(y.numpy(), composed.numpy(), rtol=1e-5, atol=1e-6)


def test_what_somebody_changed_in_a_sub_layer_counts():
    x, seen = tl.normal((2, 3, 8)), []
    attention, doubled = nn.MultiHeadAttention(8, 2), Doubled(8, 2)
    doubled.load_state_dict(attention.state_dict())
    np.testing.assert_allclose(doubled(x).numpy(), 2 * attention(x).numpy(), rtol=1e-6)
    feed_forward = nn.FeedForward(8, 12)
    before = feed_forward(x).numpy()
    with feed_forward.hidden.register_forward_hook(lambda module, args, output: seen.append(output.shape)):
        np.testing.assert_allclose(feed_forward(x).numpy(), before, rtol=1e-5, atol=1e-6)
    assert seen == [(2, 3, 12)]
    feed_forward.output = nn.Linear(12, 8, bias=False)
    assert ops_of(feed_forward(x)) == {"linear", "linear_relu"}
