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


def test_a_pass_of_one_op_is_a_frame_and_one_of_several_results_is_one_frame(tmp_path):
    x, z = leaf(1.0, 2.0), leaf(3.0)
    for y in (tl.tanh(x), [tl.tanh(x), tl.exp(z)]):
        text = tl.draw(y, tmp_path / "y.dot", 0, names={"x": x}, passes="both").read_text()
        assert text.count("<b>forward</b>") == text.count("<b>backward</b>") == 1
        assert "<b>dx = tanh backward</b>" in text and "folded module" not in text


def test_a_leaf_that_is_a_result_has_the_gradient_one(tmp_path):
    x = leaf(2.0)
    graph = with_passes(tl.graph([x], names={"x": x}), "backward")
    assert not graph.nodes and [(one.name, one.scalar) for one in graph.leaves] == [("dx", 1.0)]


def test_one_number_is_not_called_a_sum_of_results(tmp_path):
    x = leaf(1.0, 2.0)
    text = tl.draw(tl.exp(x).sum(), tmp_path / "y.dot", passes="both", show="gradients").read_text()
    assert "those of the sum" not in text
    assert "those of the sum" in tl.draw(tl.exp(x), tmp_path / "z.dot", passes="both", show="gradients").read_text()


def test_gradients_of_several_inputs_say_which(tmp_path):
    x, w = leaf([[1.0, 2.0]]), leaf([[3.0], [4.0]])
    text = tl.draw(x @ w, tmp_path / "y.dot", passes="backward", show="gradients", names={"x": x, "w": w}).read_text()
    assert "grad [0] norm 5<" in text and "grad [1] norm 2.236<" in text


def test_a_module_called_backward_is_drawn_downwards(tmp_path):
    with tl.module_scope("backward"):
        y = tl.exp(tl.exp(leaf(1.0)))
    assert "dir=back" not in tl.draw(y, tmp_path / "y.dot").read_text()
