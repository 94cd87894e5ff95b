"""Two pages that step through a computation, forward and backward: open them in a browser, and press the right arrow.

Writes steps.html and transformer-steps.html into the given directory (default: the current directory). In the first,
b = a + a and c = b + b: the gradient of b is the sum of two contributions, and flows on once. The second is a
Transformer of two layers that reads a sentence and is to write "I have a cat".
"""

import sys
from pathlib import Path

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.text.batching import encode_pairs, make_batch
from models.text.subwords import Tokenizer

where = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
where.mkdir(parents=True, exist_ok=True)

a = tl.Tensor(1.0, requires_grad=True)
with tl.record_source():  # the page names the lines of this file
    b = a + a
    c = b + b
print(tl.step_through(c, where / "steps.html", names={"a": a, "b": b, "c": c}))

PAIRS = [("我有一只猫", "I have a cat"), ("我有两只猫", "I have two cats"), ("他有一只狗", "He has a dog")]
tl.seed(0)
tokenizer = Tokenizer.train(PAIRS, vocabulary_size=300)
model = Transformer(
    TransformerConfig(
        source_vocabulary=tokenizer.source_size,
        target_vocabulary=tokenizer.target_size,
        layers=2,
        width=16,
        heads=2,
        feed_forward=32,
        dropout=0.0,
    )
)
batch = make_batch(encode_pairs(tokenizer, PAIRS[:1]))
with tl.record_formulas(), tl.record_source():  # the ops inside each sub-layer; otherwise a sub-layer is one op
    loss = tl.cross_entropy(model(batch.source_BS, batch.target_in_BT), batch.target_out_BT)
print(tl.step_through(loss, where / "transformer-steps.html", names={"loss": loss}))
