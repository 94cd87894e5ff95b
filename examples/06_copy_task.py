"""The copy task: can an encoder-decoder repeat a sequence that it has read? A small proof that its parts work together.

This is the task of "The Annotated Transformer" (Rush 2018), at the same size: 2 + 2 layers of width 512, sequences of
10 symbols, each one of 10, 400 updates on 80 new sequences each, Noam's learning rate with warm-up 400. To copy, the
decoder must discover that position t of the target is position t of the source: the loss stays near log 10 = 2.30 while
the decoder guesses, and falls once attention has learned this.

At update 400 Noam's learning rate is at its maximum and the weights oscillate. Their moving average (Polyak and
Juditsky 1992), which costs nothing, copies many more sequences correctly.

A run at full size takes minutes on two cores; `python examples/06_copy_task.py --width 32` takes seconds.
"""

import argparse

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.decoding.token_by_token import greedy
from models.text.batching import make_batch
from models.text.tokens import EOS
from nn import optim, schedules
from nn.averaging import ExponentialMovingAverage

parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=512)
width = parser.parse_args().width

SYMBOLS, LENGTH, SENTENCES, UPDATES = 10, 10, 80, 400
FIRST = EOS + 1  # the id of symbol 0; smaller ids are special symbols such as padding, beginning and end

tl.seed(0)
random = np.random.default_rng(0)
vocabulary = FIRST + SYMBOLS
model = Transformer(
    TransformerConfig(vocabulary, vocabulary, layers=2, width=width, feed_forward=4 * width, norm="pre", max_length=64)
)
optimizer = optim.Adam(model.named_parameters(), betas=(0.9, 0.98), eps=1e-9)
average = ExponentialMovingAverage(model.named_parameters(), decay=0.97)
learning_rate = schedules.noam(width, warmup=400, factor=0.5)
print(f"{model.parameter_count():,} parameters")


def sequences(count):
    """Draw sequences of ids; each begins with symbol 0, as in The Annotated Transformer."""
    drawn = random.integers(SYMBOLS, size=(count, LENGTH))
    drawn[:, 0] = 0
    return FIRST + drawn


with tl.threads():  # all cores
    for update in range(1, UPDATES + 1):
        batch = make_batch([([*row, EOS], row) for row in sequences(SENTENCES)])
        loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT)
        optimizer.zero_grad()
        loss.backward()
        optimizer.learning_rate = learning_rate(update)
        optimizer.step()
        average.update(update)
        if update % 40 == 0:
            print(f"update {update:3}  loss {loss.item():.4f}", flush=True)

unseen = sequences(200).tolist()


def copied():
    """Return the number of unseen sequences that are copied exactly."""
    copies = greedy(model, [[*row, EOS] for row in unseen])
    return sum(copy == row for copy, row in zip(copies, unseen, strict=True))


print(f"{copied()} of {len(unseen)} new sequences copied with the weights after the last update")
with average.applied():
    print(f"{copied()} of {len(unseen)} with the average of the last weights")
    (copy,) = greedy(model, [[*range(FIRST, FIRST + SYMBOLS), EOS]])
    print("0 1 2 3 4 5 6 7 8 9 ->", *[token - FIRST for token in copy])
