"""What a graph records beside ops and shapes: numbers, attributes, names, operations, composite functions, errors."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.graphs.attribute_text import attribute_text
from tests.recorded import leaf


def test_numbers_of_an_expression_are_recorded_in_their_places():
    a = leaf()
    g = tl.graph(2 * a**3 + 1, names={"a": a})
    assert [[ref.number for ref in node.inputs] for node in g] == [[None, 3], [2, None], [None, 1]]
    assert [edge.name for edge in g.edges] == ["a", "3", "2", "", "", "1"]


def test_names_are_on_edges_of_intermediate_tensors_too():
    x = leaf(2)
    hidden = tl.tanh(x)
    left, right = tl.split(hidden, 2)
    g = tl.graph(left * right, names=locals())
    assert [edge.name for edge in g.edges] == ["x", "hidden", "left", "right"]


def test_attributes_are_short_texts_that_hold_nothing_alive():
    x = leaf(2, 3)
    y = tl.sum(x[np.array([1, 0])], axis=1, keepdims=True)
    index, total = tl.graph(y).nodes
    assert total.attributes == {"axis": "1", "keepdims": "True"}
    assert all(isinstance(text, str) for node in (index, total) for text in node.attributes.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1,), "(1,)"),
        ([0.5, None, "same"], "[0.5, None, 'same']"),
        (np.float32(2), "2.0"),
        (np.ones((2, 3), bool), "(2, 3) bool"),
        ((slice(1, None, 2), ..., None), "(1::2, ..., None)"),
        (np.exp, "exp"),
        (tuple(range(100)), "(0, 1, 2, 3, 4, 5, 6, 7, …)"),
        ("x" * 1000, "'" + "x" * 58 + "…"),
    ],
)
def test_the_text_of_an_attribute(value, text):
    assert attribute_text(value) == text


@pytest.mark.parametrize(
    ("compute", "flops"),
    [
        (lambda x: x @ np.ones((4, 5)), 2 * 3 * 4 * 5),
        (lambda x: x + 1, 12),
        (lambda x: x.sum(axis=0), 12),
        (lambda x: x.reshape(4, 3).swapaxes(0, 1), 0),
        (lambda x: tl.softmax(x), 60),
        (lambda x: tl.linear(x, np.ones((4, 5)), np.ones(5)), 2 * 3 * 4 * 5 + 3 * 5),
        (lambda x: tl.lstm(x[None], *[np.ones(s) for s in [(4, 8), (2, 8), 8, (1, 2), (1, 2)]])[0], None),
    ],
)
def test_operations_are_counted_by_shape(compute, flops):
    g = tl.graph(compute(tl.Tensor(np.ones((3, 4)), requires_grad=True)))
    assert g.flops == flops if flops is not None else g.flops > 2 * 3 * 8 * 6


def test_the_products_of_a_fused_sub_layer_are_those_of_its_formula():
    config = TransformerConfig(20, 20, layers=1, width=16, heads=2, feed_forward=32, max_length=16)
    layer = Transformer(config).encoder.layers[0]
    x = np.ones((2, 5, 16), "float32")
    fused, formulas = tl.graph(layer, x, None), tl.graph(layer, x, None, formulas=True)
    assert len(fused) < len(formulas)
    assert fused.flops == pytest.approx(formulas.flops, rel=0.02)


# ---- modules and functions -------------------------------------------------------------------------------------------


def test_one_submodule_is_recorded_with_its_path_and_the_names_of_its_arguments():
    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1)])

        def forward(self, x):
            return self.layers[1](self.layers[0](x))

    net = Net()
    g = tl.graph(net.layers[1], np.ones((4, 3), "float32"))
    assert {node.path for node in g} == {"layers.1"}
    assert next((one.kind, one.name) for one in g.leaves) == ("input", "x")


def test_results_in_containers_are_found():
    g = tl.graph(lambda x: {"y": [x * 2], "n": 3, "z": (x.detach(), x + 1)}, np.ones(2))
    assert [node.op for node in g] == ["multiply", "add"] and len(g.outputs) == 2


def test_a_function_without_a_result_to_record_is_an_error():
    with pytest.raises(ValueError, match=r"graph: <lambda> must return a Tensor .*got int;"):
        tl.graph(lambda x: 3, np.ones(2))
    with pytest.raises(ValueError, match=r"got 1 without history"):
        tl.graph(lambda x: x.detach(), np.ones(2))
    with pytest.raises(TypeError, match=r"graph: inputs can only be passed with a module or function.*names=\{"):
        tl.graph(leaf(2) * 2, {"x": leaf(2)})


def test_inputs_of_a_function_stay_as_they_are():
    x = tl.ones((2, 2))
    tl.graph(lambda x: x * 2, x)
    assert not x.requires_grad


def test_composite_functions_are_levels_of_the_path():
    g = tl.graph(lambda x: tl.exp(tl.var(tl.exp(x), axis=1)).mean(), np.ones((2, 3)), formulas=True)
    paths = [(node.op, node.path) for node in g]
    assert paths[0] == ("exp", "") and ("exp", "") in paths[1:]
    assert ("sum", "var().mean()") in paths and ("divide", "var()") in paths
    assert paths[-2:] == [("sum", "mean()"), ("divide", "mean()")]


def test_an_op_that_has_the_name_of_its_function_stays_with_the_others_of_the_call():
    g = tl.graph(lambda x: tl.cross_entropy(x, np.array([0, 1])), np.ones((2, 3)), formulas=True)
    assert {node.path for node in g} == {"cross_entropy()"} and len(g) > 1


def test_ordinary_recording_knows_no_composite_functions():
    assert {node.path for node in tl.graph(leaf(3).mean())} == {""}


# ---- what was recorded when an op raised -----------------------------------------------------------------------------


def test_an_error_within_debug_holds_the_graph_recorded_so_far():
    x = leaf(2, 3)
    with pytest.raises(ValueError, match="inner sizes") as caught, tl.debug():
        hidden = tl.tanh(x * 2)
        tl.matmul(hidden, hidden)
    assert [node.op for node in caught.value.graph] == ["multiply", "tanh"]
    with pytest.raises(FloatingPointError) as caught, tl.debug():
        tl.log(x * 0).sum()
    assert [node.op for node in caught.value.graph] == ["multiply", "log"]


def test_an_error_before_anything_was_recorded_holds_no_graph():
    with pytest.raises(ZeroDivisionError) as caught, tl.debug():
        _ = 1 / 0
    assert caught.value.graph is None
