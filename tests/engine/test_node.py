"""Nodes: the arrays that they keep alive, when these are freed, and where nodes were recorded."""

import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

import tensorlib as tl
from tests.engine.helpers import Failing, leaf, without_collector


@pytest.mark.parametrize("create_graph", [False, True])
def test_the_graph_is_freed_without_the_collector(create_graph):
    def run():
        x = leaf(np.ones((4, 5)))
        hidden = tl.tanh(x @ x.T)
        loss = tl.softmax(hidden + hidden).max()
        arrays = [weakref.ref(t) for t in (hidden.data, loss.data, x.data)]
        (dx,) = tl.grad(loss, [x], create_graph=create_graph)
        if create_graph:
            tl.grad(dx.sum(), [x])
        del x, hidden, loss, dx
        return arrays

    assert [array() for array in without_collector(run)] == [None] * 3


def test_backward_frees_saved_arrays_although_the_loss_still_exists():
    x = leaf(np.ones(5))
    hidden = tl.exp(x)
    array = weakref.ref(hidden.array)
    loss = (hidden * hidden).sum()
    del hidden
    assert array() is not None
    loss.backward()
    assert array() is None


def test_memory_does_not_grow_in_two_thousand_steps():
    def steps(count):
        w = leaf(np.ones((16, 16), np.float32))
        for _ in range(count):
            loss = (tl.relu(w @ w) - tl.layer_norm(w, w[0], w[1])).square().mean()
            loss.backward()
            w.replace(w.data - 1e-6 * w.grad.data)
            w.grad = None

    def run():
        steps(20)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        steps(2000)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return grown

    assert without_collector(run) < 5e6


def test_intermediate_values_are_freed_inside_no_grad():
    x = leaf(np.ones(3))
    with tl.no_grad():
        hidden = tl.exp(x)
        array = weakref.ref(hidden.data)
        y = tl.exp(hidden)
    del hidden
    assert array() is None and y.is_leaf and not y.requires_grad


def test_exceptions_keep_no_array_alive():
    def run():
        x = leaf(np.ones(5))
        hidden = tl.exp(x)
        for mistake in (
            lambda: Failing.apply(hidden * hidden).sum().backward(),
            lambda: tl.grad(Failing.apply(hidden * hidden).sum(), [x], create_graph=True),
            lambda: tl.add(hidden, np.ones(3)),
            lambda: tl.debug()(tl.log)(hidden * 0),
        ):
            with pytest.raises((ValueError, FloatingPointError)):
                mistake()
        return weakref.ref(hidden.data)

    assert without_collector(run)() is None


def test_a_deep_graph_is_freed_without_a_crash_when_the_interpreter_exits():
    code = (
        "import tensorlib as tl\nx = y = tl.Tensor([1.0], requires_grad=True)\nfor _ in range(100_000): y = y + 1.0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nodes_know_where_they_were_recorded():
    x = leaf([1.0])
    with tl.module_scope("encoder.layers.0"):
        y = x * 2
    assert y.node.path == "encoder.layers.0" and y.node.source is None
    with tl.record_source():
        z = x * 2
    assert z.node.source.startswith(__file__) and z.node.path == ""
