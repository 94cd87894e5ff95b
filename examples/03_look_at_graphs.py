"""Pictures of computations: a small expression, and a whole Transformer with its modules folded.

Writes softmax.svg, transformer-depth-1.svg and transformer-depth-2.svg into the given directory (default: the current
directory). Rendered by Graphviz (`dot`) if it is installed, or by graphviz-pure, which is installed with tensorlib.
"""

import sys
from pathlib import Path

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig

where = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
where.mkdir(parents=True, exist_ok=True)

x = tl.Tensor(np.ones((4, 3), "float32"), requires_grad=True)
w = tl.Tensor(np.ones((3, 2), "float32"), requires_grad=True)
print(tl.draw(tl.softmax(x @ w), where / "softmax.svg", names={"x": x, "w": w}))

config = TransformerConfig(
    source_vocabulary=1000, target_vocabulary=1000, layers=2, width=64, heads=4, feed_forward=256, dropout=0.1
)
model = Transformer(config)
source_ids, target_ids = np.full((8, 12), 7), np.full((8, 10), 7)
with tl.record_formulas():  # the ops inside each sub-layer; otherwise a sub-layer is one op
    loss = tl.cross_entropy(model(source_ids, target_ids), target_ids)

graph = tl.graph(loss)  # the recorded graph as data: nodes, leaves, edges
print(graph.headline())
for depth in (1, 2):
    print(tl.draw(graph, where / f"transformer-depth-{depth}.svg", depth=depth))
