"""Step 14: the same program on a CPU and on a GPU. `backend` says where; without a GPU, it runs on NumPy only."""

import numpy as np

import nn
import tensorlib as tl
from nn import optim


def backends():
    """Return the backends of this machine."""
    try:
        tl.get_backend("cupy")
    except RuntimeError:  # no CuPy, or no GPU that answers
        return ["numpy"]
    return ["numpy", "cupy"]


class Network(nn.Module):
    """A hidden layer of tanh; not a word about devices."""

    def __init__(self):
        self.hidden, self.output = nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x):
        """Return predictions (N, 1)."""
        return self.output(tl.tanh(self.hidden(x)))


def train(backend):
    """Train a small network on a backend, and return its losses."""
    tl.seed(0)
    rng = np.random.default_rng(0)
    x = tl.Tensor(rng.normal(size=(256, 8)), backend=backend)  # copied to the device once, before training
    target = tl.sin(x.sum(axis=1, keepdims=True))
    model = Network().astype("float64").to(backend)
    optimizer = optim.Adam(model.named_parameters(), learning_rate=0.02)
    losses = []
    for _ in range(50):
        loss = tl.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())  # .item() would wait for the GPU in each step
    return [loss.item() for loss in losses]


results = {backend: train(backend) for backend in backends()}
print("losses 1, 10, 50 on NumPy:", " ".join(f"{results['numpy'][n - 1]:.4f}" for n in (1, 10, 50)))
same = [np.allclose(losses, results["numpy"], rtol=1e-6) for losses in results.values()]
print("the same, but for rounding, on all backends of this machine:", all(same))

# Ops never mix backends, because a hidden copy would cost more than the op. This is asked for, never done silently.
x = tl.Tensor([1.0, 2.0])
print("x is on", x.backend.name, "and x.to('numpy') is on", x.to("numpy").backend.name)

# What an op's author writes is the same, too: the functions of NumPy and CuPy have the same names.
print("the functions of x's array come from", tl.namespace_of(x.data).__name__)

# Random numbers depend on the seed and the position alone, so dropout and initial weights are equal on all devices.
draws = []
for backend in results:
    tl.seed(0)
    draws.append(tl.normal((3,), backend=backend).numpy())
print("the first random numbers are equal everywhere:", all(np.allclose(draw, draws[0], rtol=1e-6) for draw in draws))
