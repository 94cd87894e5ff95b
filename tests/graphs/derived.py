"""Derivations whose programs are compared with the engine, and a program that writes and one that runs them.

``python -m tests.graphs.derived FOLDER`` writes for each computation its script, and the value and the gradients that
the engine computes, ``NAME.py`` and ``NAME.npz``. `RUNNER`, in a Python that knows no tensorlib, runs the scripts and
writes ``NAME.run.npz``.
"""

import sys
from pathlib import Path

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.arrays.backend import get_backend
from tensorlib.engine.recording import Watch, recording
from tensorlib.graphs.building import recorded_nodes
from tensorlib.optable import ROWS

RUNNER = """
import runpy, sys
from pathlib import Path
import numpy as np

for script in sorted(Path(sys.argv[1]).glob("*.py")):
    values, gradients = runpy.run_path(str(script))["run"]()
    assert "tensorlib" not in sys.modules
    arrays = {f"value {name}": y for name, y in values.items()}
    arrays |= {f"gradient {name}": dx for name, dx in gradients.items()}
    np.savez(script.with_suffix(".run.npz"), **arrays)
"""

# ---- the computations ------------------------------------------------------------------------------------------------


def sample_of(row):
    """Return the sample of a row whose inputs have the most elements."""

    def size(sample):
        return sum(np.prod(a) for a in sample.arguments if isinstance(a, tuple))

    return max(row.samples, key=size)


TABLE = {row.name: (row, sample_of(row)) for row in ROWS if row.differentiable}


def loss_of_row(name, dtype="float32"):
    """Return a weighted sum of the outputs of an op at a sample of its row, and its inputs by name."""
    row, sample = TABLE[name]
    xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in row.arrays(sample, dtype)]
    y = row.bound(sample, get_backend("numpy"))(*xs)
    outputs = [z for z in (y if isinstance(y, tuple | list) else [y]) if z.requires_grad]
    loss = 0
    for k, z in enumerate(outputs):
        loss = loss + (z * np.random.default_rng(k).normal(size=z.shape).astype(z.dtype)).sum()
    return loss, {f"x{i}": x for i, x in enumerate(xs)}


def loss_of_transformer(formulas=False):
    """Return the training loss of a small Transformer, with dropout."""
    tl.seed(3)
    config = TransformerConfig(
        source_vocabulary=50, target_vocabulary=60, layers=2, width=16, heads=2, feed_forward=32, dropout=0.1
    )
    model = Transformer(config)
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, 50, (3, 7)), rng.integers(4, 60, (3, 6))
    with recording(formulas=formulas):
        return tl.cross_entropy(model(source, target), target, label_smoothing=0.1), {}


def loss_of_layouts():
    """Return a sum over arrays that are not contiguous: the order in memory decides how a sum is rounded."""
    rng = np.random.default_rng(1)
    columns = np.asfortranarray(rng.normal(size=(57, 41)).astype("float32"))
    transposed = tl.Tensor(columns, requires_grad=True)
    strided = tl.Tensor(rng.normal(size=(32, 167)).astype("float32"), requires_grad=True)
    strided.replace(rng.normal(size=(64, 500)).astype("float32")[::-2, ::3], copy=False)
    w = tl.Tensor(rng.normal(size=41).astype("float32"), requires_grad=True)
    y = (transposed * columns * transposed.sum(axis=0)).sum() + (strided.T @ strided).sum(axis=0).mean()
    y = y + (strided * strided).mean() * (transposed + w).mean()
    for shared in (tl.from_numpy(columns), columns):  # the engine saves a contiguous copy
        y = y + (shared * (transposed + w)).sum()
    return y, {"transposed": transposed, "strided": strided, "w": w}


def loss_of_checkpoint():
    """Return a loss through a checkpoint with dropout, whose saved arrays do not exist before the backward pass."""
    w = tl.Tensor(np.random.default_rng(2).normal(size=(9, 9)).astype("float32"), requires_grad=True)
    y = tl.checkpoint(lambda x: tl.dropout(tl.tanh(x @ w), 0.5, tl.Generator(5)), w)
    return (y * y).sum() + y.sum(), {"w": w}


OTHERS = {
    "transformer": loss_of_transformer,
    "transformer-formulas": lambda: loss_of_transformer(formulas=True),
    "layouts": loss_of_layouts,
    "checkpoint": loss_of_checkpoint,
}


def loss_of(name):
    return OTHERS[name]() if name in OTHERS else loss_of_row(name)


# ---- what the engine computes ----------------------------------------------------------------------------------------


class Gradients(Watch):
    """Keeps the gradients of the outputs of each node."""

    def __init__(self):
        self.of = {}

    def backward(self, node, dys, dxs):
        self.of[node.serial] = dys


def engine(name):
    """Return the derivation of a computation, and the arrays that the engine computes, by the names of its script."""
    loss, names = loss_of(name)
    derivation = tl.derive(loss, names=names)
    nodes = recorded_nodes([loss], "derived")[::-1]
    serials, watch, leaves = [node.serial for node in nodes], Gradients(), {}
    for step, node in zip(derivation.steps, nodes, strict=True):
        for symbol, edge in zip(step.inputs, node.edges, strict=True):
            if edge is not None and isinstance(edge[0], tl.Tensor):
                leaves[symbol] = edge[0]
    with recording(watch=watch):
        loss.backward()
    arrays = {f"value {derivation.output}": loss.numpy()}
    arrays |= {f"gradient {symbol}": x.grad.numpy() for symbol, x in leaves.items() if x.grad is not None}
    for step, serial in zip(derivation.steps, serials, strict=True):
        arrays |= {f"gradient {y}": dy for y, dy in zip(step.outputs, watch.of.get(serial, ()), strict=False)}
    return derivation, {name: np.array(array) for name, array in arrays.items()}


def write(folder):
    """Write the script of each computation, and what the engine computes."""
    for name in [*OTHERS, *TABLE]:
        derivation, arrays = engine(name)
        (folder / f"{name}.py").write_text(derivation.script(), encoding="utf-8")
        np.savez(folder / f"{name}.npz", **arrays)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
