"""Fused ops opened: the ops of an op's formula in its place, with its value, its gradients and its names."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.graphs.building import recorded_nodes
from tensorlib.graphs.opening import ELEMENTARY, opened
from tests.graphs.derived import TABLE, loss_of_row


def tensor(*shape):
    return tl.Tensor(np.random.default_rng(0).normal(size=shape), requires_grad=True)


def opened_value(y):
    """Return what a Tensor has become in its opened graph."""
    return opened(recorded_nodes([y], "graph")[::-1], "graph")[1][id(y.node), y.output_index]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_an_opened_op_has_its_value_and_its_gradients(name):
    loss, xs = loss_of_row(name, "float64")
    inputs = [x for x in xs.values() if x.requires_grad]
    again = opened_value(loss)
    np.testing.assert_allclose(again.numpy(), loss.numpy(), rtol=1e-9, atol=1e-12)
    expected = tl.grad(loss, inputs, allow_unused=True)
    found = tl.grad(again, inputs, allow_unused=True)
    for dx, e in zip(found, expected, strict=True):
        if e is None or dx is None:  # a zero gradient may be none
            assert not any(g.numpy().any() for g in (dx, e) if g is not None)
        else:
            np.testing.assert_allclose(
                dx.numpy(), e.numpy(), rtol=1e-7, atol=1e-9 * max(1, np.abs(e.numpy()).max(initial=0))
            )


def test_no_op_with_a_formula_of_several_ops_stays_closed():
    """What an opened graph still holds are single steps: opening it again changes nothing."""
    q = tensor(1, 2, 3, 4)
    layer = nn.LSTM(4, 3).astype("float64")
    for y in (
        tl.scaled_dot_product_attention(q, q, q, causal=True, dropout=0.1).sum(),
        tl.layer_norm(q).sum(),
        tl.cross_entropy(q[0, 0], np.array([0, 1, 3])),
        tl.gelu(q).sum(),
        layer(q[0])[0].sum(),
    ):
        ops = [node.name for node in opened(recorded_nodes([y], "graph")[::-1], "graph")[0]]
        assert not {"attention", "softmax", "layer_norm", "cross_entropy", "gelu", "lstm"} & set(ops)
        assert [node.op for node in tl.graph(opened_value(y), formulas=True)] == [
            node.op for node in tl.graph(opened_value(y))
        ]


def test_attention_is_a_part_with_softmax_as_a_part_of_it():
    q = tensor(1, 2, 3, 4)
    y = tl.scaled_dot_product_attention(q, q, q)
    graph = tl.graph(y, formulas=True, names={"q": q, "y": y})
    assert [(n.path, n.op) for n in graph if "softmax" not in n.path] == [
        ("attention()", "multiply"), ("attention()", "transpose"), ("attention()", "matmul"), ("attention()", "matmul"),
    ]  # fmt: skip
    assert {n.path for n in graph} == {"attention()", "attention().softmax()"}
    assert graph.nodes[-1].names == ("y",) and graph.leaves[0].name == "q"


def test_elementary_functions_and_the_ops_of_users_stay_closed():
    class Twice(tl.Function):
        def forward(self, x):
            return x + x

        def backward(self, dy):
            return dy + dy

    assert {"Sigmoid", "Erf"} < set(ELEMENTARY)
    y = Twice.apply(tl.erf(tl.sigmoid(tensor(3))))
    assert [node.op for node in tl.graph(y, formulas=True)] == ["sigmoid", "erf", "twice"]


def test_opening_keeps_lines_dropout_and_the_recorded_graph():
    x = tensor(4, 5)
    with tl.record_source():
        y = tl.softmax(tl.dropout(x, 0.5, generator=tl.Generator(3)))
    state = tl.default_generator().state
    graph = tl.graph(y, formulas=True, values=True)
    assert all(__file__ in node.source for node in graph)
    np.testing.assert_allclose(opened_value(y).numpy(), y.numpy(), rtol=1e-6)  # the same dropout mask
    assert [node.op for node in tl.graph(y)] == ["dropout", "softmax"]  # as before
    assert tl.default_generator().state == state


def test_a_transformer_with_values_and_gradients():
    config = TransformerConfig(20, 20, layers=1, width=8, heads=2, feed_forward=16, dropout=0.1)
    model, ids = Transformer(config), np.array([[3, 4, 2], [5, 2, 0]])
    loss = model.loss(ids, ids, ids, 0.1, "sum")
    graph = tl.graph(loss, formulas=True, values=True, gradients=True)
    assert not {node.op for node in graph} & {"self_attention", "cross_attention", "feed_forward", "add_norm"}
    assert "decoder.layers.0.attention.self_attention().attention().softmax()" in {node.path for node in graph}
    np.testing.assert_allclose(graph.values[graph.outputs[0].slot].elements, [loss.item()], rtol=1e-5)


def test_values_of_an_opened_graph_are_those_of_recording():
    x = tensor(3)
    y = tl.softmax(x)
    x.data = np.zeros(3)
    for measured in ({"values": True}, {"gradients": True}):
        with pytest.raises(RuntimeError, match="data of a Tensor had been replaced since"):
            tl.graph(y, formulas=True, **measured)


def test_a_constant_of_a_formula_is_in_its_frame(tmp_path):
    y = tl.softmax(tensor(3))
    text = tl.draw(y, tmp_path / "y.dot", None, formulas=True).read_text()
    assert text.index("subgraph") < text.index("l1 [")  # the ones that take the place of a sum of zero


def test_a_graph_is_drawn_as_it_is(tmp_path):
    with pytest.raises(ValueError, match="a Graph is drawn as it is, got formulas=True"):
        tl.draw(tl.graph(tensor(3) * 2), tmp_path / "y.dot", formulas=True)
    with pytest.raises(TypeError, match="formulas must be True or False, got 'yes'"):
        tl.draw(tensor(3) * 2, tmp_path / "y.dot", formulas="yes")
