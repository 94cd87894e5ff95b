"""An editor finds a user's mistakes: pyright reads the packages' types, not `Any`."""

import json
import subprocess
import sys

import pytest

from tests import ROOT

pytest.importorskip("basedpyright", reason="needs basedpyright (extra `dev`)")

RIGHT = """
import numpy as np

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig, load
from nn import optim


class Cube(tl.Function):
    def forward(self, x):
        self.save(x)
        return x**3

    def backward(self, dy):
        (x,) = self.saved
        return 3 * x * x * dy


class Classifier(nn.Module):
    def __init__(self) -> None:
        self.hidden = nn.Linear(4, 8)
        self.output = nn.Linear(8, 3)

    def forward(self, x: tl.Tensor) -> tl.Tensor:
        return self.output(tl.relu(self.hidden(x)))


model = Classifier()
optimizer = optim.Adam(model.named_parameters(), 1e-3)
x = tl.Tensor(np.ones((2, 4), "float32"))
loss = tl.cross_entropy(model(x), [0, 2])
loss.backward()
optimizer.step()
probabilities: np.ndarray = tl.softmax(model(x), axis=-1).numpy()
largest: float = probabilities.max().item()
gradients: tuple[tl.Tensor, ...] = tl.grad((2 - x @ x.T).sum(), [tl.Tensor(1.0, requires_grad=True)])
(values, indices) = tl.topk(x, 2)
attention = nn.MultiHeadAttention(4, 2)
(output, weights) = attention(tl.zeros((1, 2, 4)), return_weights=True)
cubes: tl.Tensor = Cube.apply(tl.Tensor([1.0, 2.0]))
rows = [row.shape for row in x]
with tl.no_grad():
    total: tl.Tensor = x.sum(axis=0) + x[0] * 3
translator = Transformer(TransformerConfig(100, 100, layers=1, width=16, heads=2, feed_forward=32))
words: list[str] = load("runs/x").translate(["hello"])
"""

WRONG = """
loss.backwrd()
tl.softmax(x, dim=1)
x.sofmax()
tl.reul(x)
tl.Tensor([1.0], require_grad=True)
nn.Linear(4)
optim.Adam(model.named_parameters(), learning_rte=0.1)
attention(tl.zeros((1, 2, 4))).nunpy()
(x + 1).sum(axes=0)
model.hiden
nn.Linear(4, 2, in_features=4)
attention(tl.zeros((1, 2, 4)), attn_mask=None)
"""


def errors_of(script, tmp_path):
    """Return the text of the line and the message of each error that the type checker reports."""
    path = tmp_path / "script.py"
    path.write_text(script, encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": "standard"})
    )
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    lines = script.split("\n")
    return [(lines[d["range"]["start"]["line"]], d["message"]) for d in found if d["severity"] == "error"]


def test_each_of_twelve_mistakes_is_found_and_nothing_else(tmp_path):
    """A mistyped method, argument, function or attribute would go unnoticed if the type before it were `Any`."""
    found = errors_of(RIGHT + WRONG, tmp_path)
    assert sorted(line for line, _ in found) == sorted(WRONG.strip().split("\n")), found
