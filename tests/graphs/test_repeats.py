"""Folding what repeats: equal steps of a loop, equal layers, equal leaves; and what must not be taken for equal."""

import random

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.graphs.folding import PAGE, fold
from tensorlib.graphs.rolling import rolled_up
from tests.recorded import leaf, linear


def loop(steps):
    y, w = leaf(3), leaf(3)
    for _ in range(steps):
        y = y + w * 1e-3
    return y


def recurrent(steps):
    """Return the states of a network that gets an input of its own in each step."""
    w, v, states = leaf(4, 4), leaf(4, 4), [leaf(2, 4)]
    for _ in range(steps):
        states.append(tl.tanh(leaf(2, 4) @ w + states[-1] @ v))
    return states[1:]


def stack_of_layers(layers, width=8):
    h = leaf(2, width)
    for i in range(layers):
        with tl.module_scope(f"encoder.layers.{i}"):
            h = h + tl.tanh(linear(f"encoder.layers.{i}.hidden", h, width, width))
    return h.sum()


def boxes(y, depth=2):
    """Return the titles of all boxes: an op's name, a leaf's kind, a module's path, or "n × ops of one step"."""
    titles = []
    for box in fold(tl.graph(y), depth).boxes:
        if box.repeat:
            titles.append(f"{box.repeat.steps} × {' '.join(box.repeat.ops) or next(iter(box.hidden))}")
        else:
            titles.append(box.node.op if box.kind == "op" else box.path or box.kind)
    return titles


def repeats(y, depth=2):
    return [title for title in boxes(y, depth) if "×" in title]


def arrows(y):
    names = {}
    view = fold(tl.graph(y), 2)
    for box in view.boxes:
        names[box.key] = "repeat" if box.repeat else box.node.op if box.node else box.kind
    return sorted((names[arrow.tail.key], names[arrow.head.key], arrow.edges) for arrow in view.arrows)


# ---- what is folded --------------------------------------------------------------------------------------------------


def test_a_loop_shows_its_first_and_last_step_and_one_box_for_all_others():
    assert boxes(loop(150)) == ["multiply", "add", "148 × multiply add", "multiply", "add", "input", "input"]
    assert arrows(loop(150)) == [
        ("add", "repeat", 1),  # the state after the first step
        ("input", "add", 1),
        ("input", "multiply", 1),
        ("input", "multiply", 1),
        ("input", "repeat", 148),  # w
        ("multiply", "add", 1),
        ("multiply", "add", 1),
        ("repeat", "add", 1),
    ]


def test_the_picture_says_what_a_repeat_holds(tmp_path):
    text = tl.draw(recurrent(50)[-1], tmp_path / "g.dot").read_text()
    assert "<b>48 more steps</b>" in text and "48 × matmul, matmul, add, tanh · 48 inputs</font>" in text
    assert 'tooltip="48 more steps, 192 ops, 48 inputs"' in text
    assert ">folded repeats</td>" in text
    text = tl.draw(stack_of_layers(12), tmp_path / "g.dot", depth=3).read_text()
    assert "<b>layers.1 … layers.10</b>" in text and "10 × matmul, add, tanh, add · 720 parameters</font>" in text


@pytest.mark.parametrize("steps", [5, 6, 40])
def test_values_that_a_repeat_delivers_are_counted(steps):
    y = tl.concatenate([*recurrent(40)[:steps], recurrent(40)[-1]])
    (box, _) = [box for box in fold(tl.graph(y), 2).boxes if box.repeat]
    assert len(box.outputs) == (steps - 2 if steps < 40 else 38)


def test_layers_are_folded_inside_their_frame_and_no_parameter_is_lost():
    view = fold(tl.graph(stack_of_layers(30)), 2)
    (encoder,) = view.root.frames
    assert [frame.title for frame in encoder.frames] == ["layers.0", "layers.29"]
    (repeat,) = [box for box in view.boxes if box.repeat]
    assert repeat.frame is encoder and repeat.ops == 28 * 4
    assert sum(box.parameters for box in view.boxes) == 30 * (8 * 8 + 8)
    assert [node.path for node in repeat.repeat.nodes[:4]] == [
        *["encoder.layers.1.hidden"] * 2,
        *["encoder.layers.1"] * 2,
    ]


def test_a_step_begins_where_a_layer_begins():
    """Here the first layer begins otherwise, so the longest run of equal steps begins within it."""
    h = leaf(2, 4)
    for i in range(30):
        with tl.module_scope(f"layers.{i}"):
            h = tl.tanh(tl.exp(h * leaf(2, 4) if i else tl.sin(h)) + leaf(2, 4))
    view = fold(tl.graph(h), 1)
    assert [frame.title for frame in view.root.frames] == ["layers.0", "layers.1", "layers.29"]


def test_a_step_may_have_each_op_several_times():
    y, w = leaf(3), leaf(3)
    for _ in range(30):
        y = tl.exp(tl.exp(tl.tanh(tl.tanh(y)) * w))
        y = tl.tanh(y * w)
    assert repeats(y) == ["28 × tanh tanh multiply exp exp multiply tanh"]


def test_a_loop_in_a_loop_is_folded_as_a_whole_and_then_in_the_steps_that_remain():
    y, w = leaf(3), leaf(3)
    for _ in range(10):
        for _ in range(20):
            y = tl.tanh(y * w)
        y = tl.exp(y)
    step = "multiply tanh"
    assert repeats(y) == [f"18 × {step}", f"8 × {' '.join([step] * 20)} exp", f"18 × {step}"]


def test_a_state_of_two_steps_ago_repeats_too():
    a, b = leaf(3), leaf(3)
    for _ in range(60):
        a, b = b, tl.sin(a) + b
    assert len(boxes(b)) == 11 and sum("×" in title for title in boxes(b)) == 1


def test_a_step_that_differs_ends_the_run():
    y, w = leaf(3), leaf(3)
    for step in range(60):
        y = (tl.exp(y) if step == 30 else tl.tanh(y)) * w
    assert repeats(y) == ["28 × tanh multiply", "27 × multiply tanh"]


def test_a_loop_that_lengthens_a_sequence_repeats_although_its_shapes_differ():
    y = leaf(1, 4)
    for _ in range(40):
        y = tl.concatenate([y, tl.tanh(y[-1:])])
    assert repeats(y) == ["38 × getitem tanh concatenate"]


def test_stages_of_equal_shapes_stay_apart():
    h = leaf(2, 8)
    for width in (8, 16):
        h = tl.concatenate([h, h], axis=1) if width == 16 else h
        for _ in range(30):
            h = tl.tanh(h) * leaf(width)
    assert repeats(h) == ["28 × tanh multiply"] * 2


def test_equal_leaves_of_one_op_are_folded():
    assert boxes(tl.concatenate([leaf(2) for _ in range(300)])) == ["concatenate", "298 × input", "input", "input"]
    assert boxes(tl.concatenate([leaf(n % 2 + 1) for n in range(300)])).count("148 × input") == 2


# ---- what is not -----------------------------------------------------------------------------------------------------


def test_a_picture_of_one_page_folds_nothing():
    y = loop(PAGE // 2 - 1)
    assert len(boxes(y)) == PAGE and not repeats(y)
    assert repeats(loop(PAGE // 2))


def test_depth_none_folds_nothing():
    assert len(boxes(loop(150), None)) == 302


def test_fewer_than_five_steps_stay_visible():
    def steps(n):
        y = leaf(3)
        for _ in range(n):
            for op in (tl.tanh, tl.exp, tl.sin, tl.cos, tl.sqrt, tl.sigmoid, tl.abs, tl.relu, tl.square, tl.log) * 2:
                y = op(y) if op is not tl.square else op(op(y)) * leaf(3)
        return y

    assert not repeats(steps(2)) and repeats(steps(5))


def test_equal_ops_that_are_wired_differently_are_not_equal_steps():
    random_numbers = np.random.default_rng(0)
    values = [leaf(2)] * 4
    for _ in range(100):
        values.append(values[-1] + values[-random_numbers.integers(1, 5)])
    hidden = 101 - len(boxes(values[-1]))
    assert 0 <= hidden <= 10  # where five neighbors happen to be wired alike


# ---- any program -----------------------------------------------------------------------------------------------------


def program(seed):
    """Return the results of random loops, some of which have modules, an inner loop, or inputs of their own."""
    choose = random.Random(seed)
    values, weights = [leaf(2) for _ in range(3)], [leaf(2) for _ in range(2)]
    ops = [
        lambda x, n: tl.tanh(x),
        lambda x, n: x + weights[n % 2],
        lambda x, n: tl.minimum(x, values[n % 3]),
        lambda x, n: x + leaf(2),
        lambda x, n: tl.sin(x) * 2.0,
    ]
    for _ in range(choose.randint(1, 3)):
        body = [(choose.choice(ops), choose.randint(0, 5), choose.choice(["", "a", "b"])) for _ in range(3)]
        named, inner = choose.random() < 0.5, choose.choice([1, 6])
        for step in range(choose.choice([3, 8, 30])):
            path = f"layers.{step}" if named else "net"
            for op, n, module in body[:1] * inner + body[1:]:
                with tl.module_scope(f"{path}.{module}" if module else path):
                    values = [*values[1:], op(values[n % 3], n)]
    return values


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_and_no_arrow_leads_back(seed):
    g = tl.graph([y for y in program(seed) if y.requires_grad])
    whole = fold(g, None)
    for depth in (0, 1, 2, 3):
        view = fold(g, depth)
        assert sum(box.ops if box.kind in ("module", "repeat") else box.kind == "op" for box in view.boxes) == len(g)
        hidden = sum(sum(box.hidden.values()) for box in view.boxes)
        assert hidden + sum(box.leaf is not None for box in view.boxes) == len(g.leaves)
        if depth == 3:  # everything is open, so that nothing but a repeat could close a circle
            assert len(view.boxes) <= len(whole.boxes) and is_acyclic(view)


def is_acyclic(view):
    waits_for = {box.key: {arrow.tail.key for arrow in view.arrows if arrow.head is box} for box in view.boxes}
    while ready := {key for key, tails in waits_for.items() if not tails}:
        waits_for = {key: tails - ready for key, tails in waits_for.items() if key not in ready}
    return not waits_for


def test_equal_ops_that_do_not_feed_each_other_are_no_loop():
    v = tl.Tensor(np.arange(5.0), requires_grad=True)
    y = sum(v[i] * (i + 2) for i in range(5))
    assert not any("×" in node.path for node in rolled_up(tl.graph(tl.stack([v[i] * 2 for i in range(5)]))))
    assert any("×" in node.path for node in rolled_up(tl.graph(y)))  # each sum needs the one before it


def test_a_folded_box_counts_all_layers():
    model = Transformer(TransformerConfig(20, 20, layers=3, width=8, heads=2, feed_forward=16))
    ids = np.full((2, 3), 4)
    graph = tl.graph(model.loss(ids, ids, ids, 0.0, "sum"))
    plain, rolled = fold(graph, 0, repeats=False), fold(rolled_up(graph), 0, repeats=False)
    counts = [
        {box.path: (box.ops, box.parameters) for box in view.boxes if box.kind == "module"} for view in (plain, rolled)
    ]
    assert counts[0]["encoder"] == counts[1]["encoder"] and counts[0]["decoder"] == counts[1]["decoder"]
