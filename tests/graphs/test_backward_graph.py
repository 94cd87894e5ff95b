"""The backward pass as a graph: one box for each gradient rule, sums where contributions meet, the engine's numbers."""

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.graphs.backward_graph import with_passes


def leaf(*values):
    return tl.Tensor(values[0] if len(values) == 1 else values, requires_grad=True)


def backward_of(y, **names):
    return with_passes(tl.graph(y, names=names, gradients=True), "backward")


def test_contributions_to_one_gradient_are_added():
    a = leaf(2.0)
    b = a + a
    graph = backward_of(b + b, a=a)
    assert [(node.op, node.names) for node in graph] == [
        ("add backward", ()), ("add", ()), ("add backward", ()), ("add", ("da",)),
    ]  # fmt: skip
    assert [graph.gradients[("node", number, 0)].elements for number in (1, 3)] == [(2.0,), (4.0,)]
    assert [ref.node for ref in graph.outputs] == [3]


def test_only_what_has_a_gradient_is_there():
    x, w = tl.Tensor([[1.0, 2.0]]), leaf((1.0,), (3.0,))
    graph = backward_of((2 * tl.tanh(x @ w) + tl.Tensor(1.0)).sum(), w=w)
    assert [node.op for node in graph] == [
        "sum backward", "add backward", "multiply backward", "tanh backward", "matmul backward",
    ]  # fmt: skip
    assert [value.shape for value in graph.nodes[-1].outputs] == [(2, 1)]  # no gradient of x
    assert graph.nodes[-1].names == ("dw",)


def test_both_passes_are_two_parts_of_one_graph():
    x = leaf(1.0, 2.0)
    forward = tl.graph(tl.exp(x).sum(), names={"x": x}, values=True, gradients=True)
    both = with_passes(forward, "both")
    assert [(node.path, node.op) for node in both] == [
        ("forward", "exp"), ("forward", "sum"), ("backward", "sum backward"), ("backward", "exp backward"),
    ]  # fmt: skip
    assert with_passes(forward, "forward") is forward
    assert both.values == forward.values and forward.gradients.items() <= both.gradients.items()


def test_every_gradient_of_a_transformer_is_the_engines():
    config = TransformerConfig(20, 20, layers=1, width=8, heads=2, feed_forward=16, dropout=0.1, tie_embeddings=False)
    model, ids = Transformer(config), np.array([[3, 4, 2], [5, 2, 0]])
    loss = model.loss(ids, ids, ids, 0.1, "sum")
    graph = backward_of(loss)
    loss.backward()
    found = {}
    for ref in graph.outputs:
        node = graph.nodes[ref.node]
        found.setdefault(node.names[ref.output], []).append(graph.gradients[ref.slot].norm)
    expected = {}
    for name, p in model.named_parameters():
        expected.setdefault(f"d{name.rpartition('.')[2]}", []).append(float(np.linalg.norm(p.grad.numpy().ravel())))
    assert found.keys() == expected.keys()
    for name, norms in expected.items():
        np.testing.assert_allclose(sorted(found[name]), sorted(norms), rtol=1e-4)
    assert all(node.path == "backward" or node.path.startswith("backward.") for node in graph)
    assert "backward.decoder.layers.0.cross_attention" in {node.path for node in graph}


def test_gradients_are_drawn_upwards_beside_the_forward_pass(tmp_path):
    x = leaf(1.0, 2.0)
    text = tl.draw(tl.exp(x).sum(), tmp_path / "y.dot", names={"x": x}, passes="both").read_text()
    assert "<b>forward</b>" in text and "<b>backward</b>" in text
    assert "n0 -> n1" in text  # exp before sum
    assert "n3 -> n2 [dir=back]" in text  # from sum backward to exp backward, which is above it


def test_a_picture_of_both_passes_that_has_to_fit_keeps_them_apart(tmp_path):
    model, ids = Transformer(TransformerConfig(20, 20, layers=2, width=8, heads=2, feed_forward=16)), np.full((2, 3), 4)
    loss = model.loss(ids, ids, ids, 0.0, "sum")
    svg = tl.draw(loss, tmp_path / "page.svg", passes="both", size="page").read_text()
    assert ">forward<" in svg and ">backward<" in svg and ">encoder<" in svg


def test_an_unknown_pass_is_refused(tmp_path):
    with pytest.raises(ValueError, match="draw: passes must be one of 'forward', 'backward', 'both'; got 'all'"):
        tl.draw(leaf(1.0) * 2, tmp_path / "y.dot", passes="all")
