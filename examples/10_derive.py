"""The equations of a network and of its gradients, node by node, and a program that repeats them with NumPy alone.

Writes derivation.tex (for pdflatex) and derivation.py into the given directory (default: the current directory), runs
the latter in a Python that cannot import tensorlib, and compares its checksums with the engine's gradients.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

import tensorlib as tl

where = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
where.mkdir(parents=True, exist_ok=True)

rng = np.random.default_rng(0)
x = tl.Tensor(rng.normal(size=(4, 3)))
w = tl.Tensor(rng.normal(size=(3, 2)), requires_grad=True)
b = tl.Tensor(np.zeros(2), requires_grad=True)
h = tl.tanh(x @ w + b)
loss = (h * h).mean()  # h is used twice, so its gradient has two summands

derivation = tl.derive(loss, names=locals())  # before backward, which releases the graph
print(derivation)
(where / "derivation.tex").write_text(derivation.latex(document=True), encoding="utf-8")
(where / "derivation.py").write_text(derivation.script(), encoding="utf-8")

print()
alone = [sys.executable, "-I", where / "derivation.py"]
print(subprocess.run(alone, capture_output=True, text=True, check=True).stdout)
loss.backward()
print("the engine's gradient of b:", b.grad.numpy().tolist())
