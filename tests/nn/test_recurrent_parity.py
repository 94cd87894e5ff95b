"""RNN, GRU and LSTM against PyTorch's, in float64 with copied weights. Needs the extra `peers`."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from nn import from_pytorch, to_pytorch

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
pytestmark = pytest.mark.peers

LENGTHS = [7, 5, 2, 1]
VISIBLE = np.arange(7) < np.array(LENGTHS)[:, None]
KINDS = ["RNN", "GRU", "LSTM"]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def arrays(state):
    return {name: x.detach().numpy() for name, x in state.items()}


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=0, atol=1e-9 * abs(theirs).max().item())


def weighted(output, states, tensor):
    """Return a loss in which every output and every last state counts."""
    states = states if isinstance(states, tuple) else (states,)
    parts = [output, *states]
    return sum((part * tensor(normal(*part.shape, seed=i))).sum() for i, part in enumerate(parts))


def firsts(name, shape, tensor):
    states = tuple(tensor(normal(*shape, seed=i), requires_grad=True) for i in range(2))
    return states if name == "LSTM" else states[0]


def gradients(states):
    return [x.grad for x in (states if isinstance(states, tuple) else (states,))]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (3, True)])
@pytest.mark.parametrize("name", KINDS)
def test_sequences_have_pytorchs_values_and_gradients(name, layers, bidirectional, padded):
    theirs = getattr(torch.nn, name)(5, 6, layers, batch_first=True, bidirectional=bidirectional).double()
    ours = getattr(nn, name)(5, 6, layers, bidirectional).astype("float64")
    ours.load_state_dict(from_pytorch(arrays(theirs.state_dict())))

    shape = (layers * (2 if bidirectional else 1), 4, 6)
    x, their_x = tl.Tensor(normal(4, 7, 5), requires_grad=True), torch.tensor(normal(4, 7, 5), requires_grad=True)
    state, their_state = firsts(name, shape, tl.Tensor), firsts(name, shape, torch.tensor)
    output, last = ours(x, state, VISIBLE if padded else None)
    if padded:
        packed = torch.nn.utils.rnn.pack_padded_sequence(their_x, LENGTHS, batch_first=True)
        packed, their_last = theirs(packed, their_state)
        their_output, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    else:
        their_output, their_last = theirs(their_x, their_state)
    close(output, their_output)
    weighted(output, last, tl.Tensor).backward()
    weighted(their_output, their_last, torch.tensor).backward()

    close(x.grad, their_x.grad)
    for dx, their_dx in zip(gradients(state), gradients(their_state), strict=True):
        close(dx, their_dx)
    # Our bias is the sum of PyTorch's two, so each of these gets the gradient of the sum.
    grads = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    expected = from_pytorch({n: g / 2 if n.startswith("bias") and name != "GRU" else g for n, g in grads.items()})
    for key, parameter in ours.named_parameters():
        if name == "GRU" and key.endswith("bias"):
            r_z = 2 * 6  # these parts were added up; that of n was not
            expected[key][:r_z] /= 2
        close(parameter.grad, torch.tensor(np.array(expected[key])))


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_activation_of_an_rnn(activation):
    theirs = torch.nn.RNN(5, 6, nonlinearity=activation, batch_first=True).double()
    ours = nn.RNN(5, 6, activation=activation).astype("float64")
    ours.load_state_dict(from_pytorch(arrays(theirs.state_dict())))
    x, their_x = tl.Tensor(normal(4, 7, 5), requires_grad=True), torch.tensor(normal(4, 7, 5), requires_grad=True)
    output, their_output = ours(x)[0], theirs(their_x)[0]
    close(output, their_output)
    weighted(output, (), tl.Tensor).backward()
    weighted(their_output, (), torch.tensor).backward()
    close(x.grad, their_x.grad)
    close(ours.cells[0].weight_h.grad, theirs.weight_hh_l0.grad.T)


@pytest.mark.parametrize("name", KINDS)
def test_cells_have_pytorchs_values_and_gradients(name):
    theirs = getattr(torch.nn, f"{name}Cell")(5, 6).double()
    ours = getattr(nn, f"{name}Cell")(5, 6).astype("float64")
    ours.load_state_dict(from_pytorch(arrays(theirs.state_dict())))
    first, their_first = firsts(name, (4, 6), tl.Tensor), firsts(name, (4, 6), torch.tensor)
    state, their_state, inputs = first, their_first, []
    for seed in range(3):
        x = normal(4, 5, seed=seed)
        inputs.append((tl.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)))
        state, their_state = ours(inputs[-1][0], state), theirs(inputs[-1][1], their_state)
    last, their_last = (s if isinstance(s, tuple) else (s,) for s in (state, their_state))
    for one, their_one in zip(last, their_last, strict=True):
        close(one, their_one)
    weighted(last[0], last[1:], tl.Tensor).backward()
    weighted(their_last[0], their_last[1:], torch.tensor).backward()
    for x, their_x in inputs:
        close(x.grad, their_x.grad)
    for dx, their_dx in zip(gradients(first), gradients(their_first), strict=True):
        close(dx, their_dx)
    close(ours.weight_x.grad, theirs.weight_ih.grad.T)
    close(ours.weight_h.grad, theirs.weight_hh.grad.T)
    close(ours.bias.grad, theirs.bias_ih.grad)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_weights_go_to_pytorch_and_back(name, bias):
    theirs = getattr(torch.nn, name)(5, 6, 2, batch_first=True, bidirectional=True, bias=bias).double()
    ours = getattr(nn, name)(5, 6, 2, True).astype("float64")
    ours.load_state_dict(from_pytorch(arrays(theirs.state_dict())))
    again = getattr(torch.nn, name)(5, 6, 2, batch_first=True, bidirectional=True).double()
    again.load_state_dict({k: torch.tensor(np.array(v)) for k, v in to_pytorch(ours).items()})
    x = torch.tensor(normal(4, 7, 5))
    close(tl.Tensor(again(x)[0].detach().numpy()), theirs(x)[0])
    for key, array in from_pytorch(to_pytorch(ours)).items():
        np.testing.assert_array_equal(array, ours.state_dict()[key])
