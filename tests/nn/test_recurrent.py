"""Recurrent layers: padding, directions, states, dropout, truncation, and mistakes."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import from_pytorch, to_pytorch
from tests.edges import refused

LAYERS = [nn.RNN, nn.GRU, nn.LSTM]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def built(kind, *sizes, **options):
    return kind(*sizes, generator=tl.Generator(1), **options).astype("float64")


def parts(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_padded_sentence_gets_what_it_would_get_alone(kind, bidirectional):
    model, x = built(kind, 3, 4, layers=2, bidirectional=bidirectional), normal(3, 6, 3)
    lengths = [6, 2, 1]
    visible = np.arange(6) < np.array(lengths)[:, None]
    x[~visible] = 99  # padding is never read
    h, last = model(x, visible_BT=visible)
    for i, length in enumerate(lengths):
        alone, last_alone = model(x[i : i + 1, :length])
        np.testing.assert_allclose(h.numpy()[i, :length], alone.numpy()[0], atol=1e-15)
        assert not h.numpy()[i, length:].any()
        for one, one_alone in zip(parts(last), parts(last_alone), strict=True):
            np.testing.assert_allclose(one.numpy()[:, i], one_alone.numpy()[:, 0], atol=1e-15)


@pytest.mark.parametrize("kind", LAYERS)
def test_padding_gets_no_gradient(kind):
    model, visible = (
        built(kind, 3, 4, layers=2, bidirectional=True),
        np.array([[True, True, False], [True, True, True]]),
    )
    x = tl.Tensor(normal(2, 3, 3), requires_grad=True)
    h, last = model(x, visible_BT=visible)
    (h.sum() + sum(one.sum() for one in parts(last))).backward()
    assert not x.grad.numpy()[~visible].any() and x.grad.numpy()[visible].all()


@pytest.mark.parametrize("kind", LAYERS)
def test_a_sequence_in_two_parts_is_the_whole_sequence(kind):
    model, x = built(kind, 3, 4, layers=2), normal(2, 7, 3)
    whole, last = model(x)
    first, state = model(x[:, :3])
    second, state = model(x[:, 3:], state)
    np.testing.assert_allclose(tl.concatenate([first, second], axis=1).numpy(), whole.numpy(), atol=1e-15)
    for one, other in zip(parts(last), parts(state), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-15)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_cell_is_one_step_of_the_sequence(kind):
    model, x, state = built(kind, 3, 4), normal(2, 5, 3), None
    h, _ = model(x)
    for t in range(5):
        state = model.cells[0](x[:, t], state)
        np.testing.assert_allclose(parts(state)[0].numpy(), h.numpy()[:, t], atol=1e-15)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_backward_direction_reads_the_reversed_sequence(kind):
    both, x = built(kind, 3, 4, bidirectional=True), normal(2, 5, 3)
    alone = built(kind, 3, 4)
    alone.load_state_dict({k.replace("cells.1", "cells.0"): v for k, v in both.state_dict().items() if "cells.1" in k})
    h, last = both(x)
    reversed_h, reversed_last = alone(x[:, ::-1])
    np.testing.assert_allclose(h.numpy()[:, :, 4:], reversed_h.numpy()[:, ::-1], atol=1e-15)
    np.testing.assert_allclose(parts(last)[0].numpy()[1], parts(reversed_last)[0].numpy()[0], atol=1e-15)


def test_the_forget_gate_starts_open_and_the_other_biases_at_zero():
    cell = nn.LSTMCell(3, 2)
    np.testing.assert_array_equal(cell.bias.numpy(), [0, 0, 1, 1, 0, 0, 0, 0])
    assert not nn.GRUCell(3, 2).bias.numpy().any() and abs(cell.weight_h.numpy()).max() <= 2**-0.5


@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_acts_between_layers_in_training_only(kind):
    model, x = built(kind, 3, 4, layers=2, dropout=0.5), normal(2, 5, 3)
    first, second = model(x)[0].numpy(), model(x)[0].numpy()
    assert (first != second).any()
    model.eval()
    np.testing.assert_array_equal(model(x)[0].numpy(), model(x)[0].numpy())
    single = built(kind, 3, 4, dropout=0.5)
    np.testing.assert_array_equal(single(x)[0].numpy(), single(x)[0].numpy())


@pytest.mark.parametrize("kind", LAYERS)
def test_a_detached_state_ends_the_backward_pass(kind):
    model, x = built(kind, 3, 4), tl.Tensor(normal(2, 6, 3), requires_grad=True)
    first, second = tl.split(x, 2, axis=1)
    _, state = model(first)
    model(second, nn.detached(state))[0].sum().backward()
    assert not x.grad.numpy()[:, :3].any() and x.grad.numpy()[:, 3:].all()


@pytest.mark.parametrize("kind", LAYERS)
def test_one_layer_is_one_node(kind):
    x = tl.Tensor(normal(2, 50, 3), requires_grad=True)
    names = [node.op for node in tl.graph(built(kind, 3, 4)(x)[0]).nodes]
    assert names.count(kind.__name__.lower()) == 1


@pytest.mark.parametrize("kind", LAYERS)
def test_the_whole_module_passes_the_gradient_check(kind):
    model, visible = (
        built(kind, 2, 3, layers=2, bidirectional=True),
        np.array([[True, True, False], [True, True, True]]),
    )
    tl.gradcheck(lambda x: model(x, visible_BT=visible)[0], normal(2, 3, 2), order=2)


X = np.ones((2, 5, 3), np.float32)
WEIGHTS = np.ones((3, 12)), np.ones((4, 12)), np.ones(12)
PYTORCH = {"weight_ih": np.ones((4, 2)), "weight_hh": np.ones((4, 4))}
test_mistakes_are_named_with_the_value_and_the_remedy = refused([
    (lambda: nn.LSTM(3, 4)(X[0]), ValueError, r"LSTM: x must have shape \(sentences, steps, 3\), got \(5, 3\)"),
    (lambda: nn.LSTM(3, 4)(X[:, :0]), ValueError, r"lstm: x must be .* at least one step, got shape \(2, 0, 3\)"),
    (lambda: nn.LSTM(3, 4)(X, tl.zeros((1, 2, 4))), TypeError, r"LSTM: state must be a pair \(h, c\)"),
    (lambda: nn.GRU(3, 4)(X, (tl.zeros((1, 2, 4)),) * 2), TypeError, "GRU: state must be a Tensor of shape"),
    (lambda: nn.GRU(3, 4)(X, tl.zeros((2, 2, 4))), ValueError, r"GRU: state must .* L = 1, got \(2, 2, 4\)"),
    (lambda: nn.GRU(3, 4)(X, tl.zeros((1, 3, 4))), ValueError, r"gru: a first state .* \(2, 4\); got \(3, 4\)"),
    (lambda: nn.RNN(3, 4)(X, None, np.ones((2, 4), bool)), ValueError, r"rnn: visible .* \(2, 5\), got \(2, 4\)"),
    (lambda: nn.RNN(3, 4)(X, None, np.ones((2, 5))), TypeError, "rnn: visible must be boolean"),
    (lambda: nn.RNN(3, 4, activation="gelu"), ValueError, "RNNCell: activation must be 'tanh' or 'relu', got 'gelu'"),
    (lambda: nn.LSTM(3, 0), ValueError, "LSTM: state_width must be an integer of at least 1, got 0"),
    (lambda: nn.LSTM(3, 4, dropout=1.0), ValueError, r"LSTM: dropout must lie in \[0, 1\), got 1.0"),
    (lambda: tl.lstm(X, *WEIGHTS), ValueError, r"lstm: .* \(D, 4 H\).*\(3, 12\)"),
    (lambda: tl.gru(X, *WEIGHTS, np.ones(3)), ValueError, r"gru: bias_h .*\(3,\)"),
    (lambda: tl.rnn(X, np.ones((3, 4)), np.ones((4, 4)), np.ones(4), None, "relu6"), ValueError, "rnn: .* 'relu6'"),
    (lambda: from_pytorch({"weight": X}), ValueError, "from_pytorch: expected names as weight_ih_l0, got 'weight'"),
    (lambda: from_pytorch({"weight_ih_l1": X}), ValueError, "needs a matrix weight_ih_l0, got weight_ih_l1"),
    (lambda: from_pytorch({"weight_ih": np.ones((4, 2))}), ValueError, "needs a matrix weight_hh, got weight_ih"),
    (lambda: from_pytorch({**PYTORCH, "bias_ih": np.ones(1)}), ValueError, r"bias_ih must have shape \(4,\).*\(1,\)"),
    (lambda: from_pytorch({**PYTORCH, "bias_hh": np.ones(3)}), ValueError, r"bias_hh must have shape \(4,\).*\(3,\)"),
    (lambda: from_pytorch({**PYTORCH, "weight_hh_l0": np.ones((4, 4))}), ValueError, "got both: weight_ih, w"),
    (lambda: from_pytorch({}), ValueError, "needs a matrix weight_ih_l0, got nothing"),
    (lambda: to_pytorch(nn.Linear(2, 2)), TypeError, "to_pytorch: needs an RNN, GRU, LSTM or a cell, got Linear"),
])  # fmt: skip


def test_the_state_of_an_lstm_cell_is_a_pair():
    with pytest.raises(TypeError, match=r"LSTMCell.*: state must be a pair \(h, c\) of Tensors \(B, H\), got"):
        nn.LSTMCell(3, 4)(tl.ones((2, 3)), tl.ones((2, 4)))
