"""The graph as data: its contents, and its folding at each depth."""

import gc
import pickle
import re
import weakref

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.graphs.folding import fold, levels_of
from tensorlib.messages import shown_bytes
from tests.recorded import leaf, linear, network

# ---- the graph as data -----------------------------------------------------------------------------------------


def test_nodes_leaves_and_edges_in_order():
    x, w = leaf(4, 3), leaf(3, 2, name="layer.weight")
    g = tl.graph(tl.softmax(x @ w), names={"x": x})
    assert [(n.number, n.op, n.outputs) for n in g] == [
        (0, "matmul", (((4, 2), "float32"),)),
        (1, "softmax", (((4, 2), "float32"),)),
    ]
    assert [(v.kind, v.name, v.value.shape) for v in g.leaves] == [
        ("input", "x", (4, 3)),
        ("parameter", "layer.weight", (3, 2)),
    ]
    assert [(e.source, e.target.op, e.position, e.value.shape) for e in g.edges] == [
        (g.leaves[0], "matmul", 0, (4, 3)),
        (g.leaves[1], "matmul", 1, (3, 2)),
        (g.nodes[0], "softmax", 0, (4, 2)),
    ]
    assert len(g) == 2 and g.outputs[0].node == 1 and g.parameters == [g.leaves[1]]


def test_constants_are_leaves_and_scalars_are_not():
    mask, w = tl.Tensor(np.ones((2, 2), "float32")), leaf(2, 2)
    g = tl.graph((w * mask) @ mask * 2.0, names=locals())
    assert [(v.kind, v.name) for v in g.leaves] == [("input", "w"), ("constant", "mask")]  # one, though used twice
    last = list(g.edges)[-1]
    assert last.source is None and last.value == ((), "")


def test_a_shared_parameter_is_one_leaf_and_every_node_comes_after_its_inputs():
    a, w = leaf(2, 3), leaf(3, 3, name="w")
    h = a @ w
    y = (tl.relu(h @ w) + tl.tanh(h)) * h
    g = tl.graph(y + y)
    assert g.op_counts() == {"matmul": 2, "relu": 1, "tanh": 1, "add": 2, "multiply": 1}
    assert len(g.leaves) == 2
    assert all(s.node is None or s.node < node.number for node in g for s in node.inputs)
    assert [s.node for s in g.nodes[-1].inputs] == [5, 5]  # y + y: two edges


def test_outputs_of_split_keep_their_numbers():
    a, b, c = tl.split(leaf(2, 6), 3, axis=-1)
    g = tl.graph([c * a, b])
    assert [v.shape for v in g.nodes[0].outputs] == [(2, 2)] * 3
    assert [s.output for s in g.nodes[1].inputs] == [2, 0]
    assert [(y.node, y.output) for y in g.outputs] == [(1, 0), (0, 1)]


def test_path_and_source_line_are_those_of_the_recording():
    x = leaf(3)
    with tl.module_scope("encoder.layers.0"), tl.record_source():
        y = tl.exp(x)
    node = tl.graph(y * y).nodes[0]
    assert node.path == "encoder.layers.0"
    assert re.fullmatch(r".*test_graph\.py:\d+", node.source)
    assert tl.graph(y * y).nodes[1].source is None


def test_memory_is_counted_once_and_leaves_not_at_all():
    x = leaf(1000)
    y = tl.tanh(x * x)  # multiply keeps x, a leaf; tanh keeps its own output of 4,000 bytes, and so does the next op
    g = tl.graph(tl.exp(y * y))
    assert [n.saved_bytes for n in g] == [0, 4000, 0, 4000]
    assert "8 kB saved for backward" in g.summary()


class Masked(tl.Function):
    """y = m x with a mask m in a list in a dict."""

    def forward(self, x, mask):
        self.masks = {"one": [mask]}
        return x * mask

    def backward(self, dy):
        return dy * self.masks["one"][0]


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda x: tl.where(x > 0, x, 0), 1000),
        (lambda x: x.masked_fill(x > 0, 1), 1000),
        (lambda x: x[np.arange(100)], 800),
        (lambda x: x.reshape(10, 10, 10)[[1, 2, 3], :, [4, 5, 6]], 48),
        (lambda x: tl.embedding(x.reshape(50, 20), np.arange(20)), 160),
        (lambda x: tl.checkpoint(lambda x: tl.where(x > 0, x, 0), x), 1000),
        (lambda x: Masked.apply(x, mask=np.ones(1000, bool)), 1000),
    ],
)
def test_masks_and_indices_are_counted(compute, expected):
    assert tl.graph(compute(leaf(1000))).saved_bytes == expected


def test_the_mask_of_attention_is_counted_once():
    q, visible = leaf(1, 2, 40, 8), tl.Tensor(np.ones((1, 1, 40, 40), bool))

    def saved_bytes(*mask):
        ys = [tl.scaled_dot_product_attention(q, q, q, *mask) for _ in range(2)]
        return tl.graph(ys).saved_bytes

    assert saved_bytes(visible) - saved_bytes() == 1600


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e7, "20 MB"), (3e12, "3,000 GB")]
)
def test_shown_bytes(n, text):
    assert shown_bytes(n) == text


def test_summary_and_repr():
    g = tl.graph(linear("a", leaf(2, 3), 3, 4))
    assert repr(g).startswith("Graph(2 ops, 16 parameters in 2 tensors, 1 input, ")
    assert "ops: add 1, matmul 1" in g.summary() and "outputs: (2, 4) float32" in g.summary()


def test_a_graph_keeps_no_array_alive_and_outlives_the_recorded_nodes():
    y = network()
    h = leaf(3)
    array = weakref.ref(h.data)
    gc.disable()
    try:
        g = tl.graph(y + h.sum())
        del h
        assert array() is None
    finally:
        gc.enable()
    y.backward()
    assert pickle.loads(pickle.dumps(g)).nodes == g.nodes
    assert len(fold(g, 1).boxes) > 0


def test_a_released_graph_is_an_error_with_the_remedy():
    y = leaf(3).sum()
    y.backward()
    with pytest.raises(
        RuntimeError, match=r"graph: the graph behind sum was released .*call graph before backward.*retain_graph=True"
    ):
        tl.graph(y)


def test_a_tensor_without_history_is_an_error_with_the_reason():
    with tl.no_grad():
        y = leaf(3) * 2
    with pytest.raises(ValueError, match=r"graph: nothing was recorded for the Tensor of shape \(3,\).*no_grad"):
        tl.graph(y)
    with pytest.raises(TypeError, match="got list"):
        tl.graph([[1]])
    with pytest.raises(ValueError, match="at least one Tensor"):
        tl.graph([])


# ---- folding ---------------------------------------------------------------------------------------------------


def titles(view):
    return sorted(box.path.rpartition("encoder.")[2] for box in view.boxes if box.kind == "module")


@pytest.mark.parametrize(
    ("path", "levels"),
    [
        ("", ()),
        ("encoder.layers.0.norm", ("encoder", "layers.0", "norm")),
        ("0.1", ("0", "1")),
        ("layers.0.1.net.2", ("layers.0", "1", "net.2")),
    ],
)
def test_a_container_and_its_number_are_one_level(path, levels):
    assert levels_of(path) == levels


def test_depth_is_the_number_of_open_levels():
    g = tl.graph(network())
    assert titles(fold(g, 0)) == ["encoder"]
    assert titles(fold(g, 1)) == ["layers.0", "layers.1"]
    assert titles(fold(g, 2)) == [f"layers.{i}.{m}" for i in range(2) for m in ("attention", "dropout", "dropout")]
    opened = fold(g, None)
    assert sum(box.kind == "op" for box in opened.boxes) + 4 == len(g)  # 4 dropouts: one op each, drawn as one box
    assert {box.ops for box in opened.boxes if box.kind == "module"} == {1}


def test_a_folded_module_counts_its_ops_and_parameters_and_knows_its_output():
    view = fold(tl.graph(network()), 1)
    first = next(box for box in view.boxes if box.path == "encoder.layers.0")
    assert (first.ops, first.parameters, [v.shape for v in first.outputs]) == (9, 2 * (8 * 8 + 8), [(2, 8)])
    assert [box.kind for box in view.boxes if box.leaf] == ["input"]  # its parameters are folded with it


def test_edges_between_folded_modules_are_merged():
    view = fold(tl.graph(network()), 1)
    arrows = [(a.tail.path, a.head.path, a.edges) for a in view.arrows]
    assert ("encoder.layers.0", "encoder.layers.1", 4) in arrows  # query, key and two residual adds
    assert len(arrows) == 3


def test_a_module_called_twice_does_not_form_a_cycle():
    view = fold(tl.graph(network()), 2)
    heads = {}
    for arrow in view.arrows:
        heads.setdefault(arrow.tail.key, []).append(arrow.head.key)
    waiting = {box.key: sum(a.head is box for a in view.arrows) for box in view.boxes}
    ready = [key for key, n in waiting.items() if n == 0]
    for key in ready:
        for head in heads.get(key, []):
            waiting[head] -= 1
            if waiting[head] == 0:
                ready.append(head)
    assert len(ready) == len(view.boxes)


def test_a_parameter_that_two_modules_share_is_outside_both():
    w = leaf(4, 4, name="embedding.weight")
    x = leaf(2, 4)
    for path in ("net.first", "net.second"):
        with tl.module_scope(path):
            x = tl.relu(x @ w)
    (box,) = [box for box in fold(tl.graph(x), 1).boxes if box.kind == "parameter"]
    assert box.frame.path == "net"
