"""Step 11: training dynamics. What gradient norms, the learning rate and the loss say about a training run."""

import numpy as np

import nn
import tensorlib as tl
from nn import optim, schedules

rng = np.random.default_rng(0)
x = tl.Tensor(rng.normal(size=(64, 32)))
target = tl.sin(2 * x[:, :1])  # to be learned from 64 examples


class Deep(nn.Module):
    """Eight layers of tanh; `scale` multiplies the initial weights, whose variance is otherwise 1/width."""

    def __init__(self, scale):
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
        self.output = nn.Linear(32, 1)
        for layer in self.layers:
            layer.weight.replace(scale * rng.normal(size=(32, 32)) / np.sqrt(32))

    def forward(self, x):
        """Return predictions (N, 1) and the values of all hidden layers, whose gradients are kept."""
        hidden = []
        for layer in self.layers:
            x = tl.tanh(layer(x))
            x.retain_grad()
            hidden.append(x)
        return self.output(x), hidden


print("norm of the gradient at the values of layers 1 to 8, by the scale of the initial weights:")
for scale in (0.3, 1.0, 3.0):
    tl.seed(0)
    predicted, hidden = Deep(scale).astype("float64")(x)
    tl.mse_loss(predicted, target).backward()
    print(f"  scale {scale}:", " ".join(f"{np.linalg.norm(h.grad.numpy()):6.0e}" for h in hidden))


def losses_of(learning_rate, updates=60, clip=None):
    """Train by plain gradient descent at learning_rate(update); return the loss before each update."""
    tl.seed(0)
    random = np.random.default_rng(1)
    first = tl.Tensor(random.normal(size=(32, 32)) / np.sqrt(32), requires_grad=True)
    second = tl.Tensor(random.normal(size=(32, 1)) / np.sqrt(32), requires_grad=True)
    optimizer = optim.SGD([first, second], learning_rate=1.0)
    found = []
    for update in range(1, updates + 1):
        loss = tl.mse_loss(tl.relu(x @ first) @ second, target)
        found.append(loss.item())
        if found[-1] > 1e4:  # diverged; the losses that follow would be infinite
            return found + [np.inf] * (updates - update)
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            optim.clip_grad_norm([first, second], clip)
        optimizer.learning_rate = learning_rate(update)
        optimizer.step()
    return found


def row(losses):
    """Return the losses before updates 1, 2, 5, 10, 20 and 60, as text."""
    chosen = [losses[n - 1] for n in (1, 2, 5, 10, 20, 60)]
    return " ".join(f"{loss:8.2f}" if loss < 1e4 else "    huge" for loss in chosen)


print("\nloss before update           1        2        5       10       20       60")
for rate in (0.001, 0.1, 1.0):
    print(f"  learning rate {rate:5}:", row(losses_of(lambda update, rate=rate: rate)))
print("  1.0, clipped to 0.1:", row(losses_of(lambda update: 1.0, clip=0.1)))

noam = schedules.noam(width=512, warmup=4000)
print("\nNoam's learning rate: up for 4,000 updates, then down as 1 / sqrt(update)")
for update in (1, 1000, 4000, 16000, 64000):
    print(f"  update {update:6,}: {noam(update):.6f}")
