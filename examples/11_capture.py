"""A training step of one's own that a GPU records once and then replays, without Python between its kernels.

A network of two layers learns the sum of its inputs' sines. `tl.capture(step)` does what `step` does. On a GPU the
second call records it as a CUDA graph, and later calls launch that: the losses are the same to the last bit, and a step
takes the time of its kernels. On NumPy every call runs `step`, so a program can be written without a GPU; what only a
GPU refuses is listed in docs/capture.md.

    python examples/11_capture.py
    python examples/11_capture.py --backend cupy
"""

import argparse
import time

import numpy as np

import nn
import tensorlib as tl
from nn import optim

parser = argparse.ArgumentParser()
parser.add_argument("--backend", default="numpy", choices=["numpy", "cupy"])
backend = tl.get_backend(parser.parse_args().backend)

UPDATES, ROWS = 300, 64


class Network(nn.Module):
    """Two layers, with dropout: each call draws another mask, also in a replay."""

    def __init__(self):
        self.hidden, self.output = nn.Linear(4, 64), nn.Linear(64, 1)
        self.dropout = nn.Dropout(0.02)

    def forward(self, x_BF):
        """Return one number for each row."""
        return self.output(self.dropout(tl.tanh(self.hidden(x_BF))))[:, 0]


def train(captured):
    """Train, and return the losses. `captured` says whether the step is captured."""
    tl.seed(0)
    model = Network().to(backend)
    optimizer = optim.Adam(model.named_parameters(), learning_rate=0.01)

    def step(x_BF, y_B):
        loss = tl.mse_loss(model(x_BF), y_B)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss  # a copy without history; the value is read later, because reading waits for the GPU

    run = tl.capture(step, backend=backend) if captured else step
    rng, pending, losses = np.random.default_rng(0), [], []
    for update in range(UPDATES):
        optimizer.learning_rate = 0.01 * (1 - update / UPDATES)  # may change from step to step
        x_BF = rng.uniform(-2, 2, (ROWS, 4)).astype("float32")
        loss = run(tl.Tensor(x_BF, backend=backend), tl.Tensor(np.sin(x_BF).sum(axis=1), backend=backend))
        pending.append(backend.fetch_later(loss.data))  # on its way to the host; nothing waits here
        while pending and pending[0].ready():
            losses.append(float(pending.pop(0).value()))
    return losses + [float(one.value()) for one in pending]


results = {}
for captured in (False, True):
    began = time.perf_counter()
    losses = results[captured] = train(captured)
    milliseconds = 1000 * (time.perf_counter() - began) / UPDATES
    how = "captured" if captured else "as written"
    print(f"{how:10}  loss {losses[0]:.4f} -> {np.mean(losses[-20:]):.4f}, {milliseconds:.2f} ms a step")
print("the losses are", "the same bits" if results[False] == results[True] else "different")
