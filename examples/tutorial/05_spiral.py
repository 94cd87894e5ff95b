"""Step 5: a first network that learns: two spirals, which no straight line separates."""

import numpy as np

import nn
import tensorlib as tl
from nn import optim

rng = np.random.default_rng(0)
POINTS = 100  # of each class


def spirals():
    """Return points (2 POINTS, 2) on two arms of a spiral, with a little noise, and their classes (2 POINTS,)."""
    radius = np.linspace(0.05, 1, POINTS)
    arms = []
    for start in (0, np.pi):  # the second arm is the first, turned by half a circle
        angle = start + 1.5 * 2 * np.pi * radius
        arms.append(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    x = np.concatenate(arms)
    return x + rng.normal(size=x.shape) * 0.01, np.repeat([0, 1], POINTS)


class Network(nn.Module):
    """Two hidden layers of tanh, and a logit for each class."""

    def __init__(self, width):
        self.first, self.second, self.output = nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, x):
        """Return logits (N, 2) for points (N, 2)."""
        return self.output(tl.tanh(self.second(tl.tanh(self.first(x)))))


def train(model, x, classes, updates):
    """Lower the cross-entropy by Adam, with ever smaller steps, and print how it goes."""
    optimizer = optim.Adam(model.named_parameters())
    for update in range(updates + 1):
        logits = model(x)
        loss = tl.cross_entropy(logits, classes)
        if update % (updates // 4) == 0:
            right = (logits.numpy().argmax(axis=1) == classes).mean()
            print(f"  update {update:3}  loss {loss.item():.2f}  right {right:4.0%}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.learning_rate = 0.02 * (1 - update / (updates + 1))
        optimizer.step()


x, classes = spirals()
tl.seed(0)

print("a straight line, logits = x W + b:")
train(nn.Linear(2, 2).astype("float64"), tl.Tensor(x), classes, 600)

model = Network(width=16).astype("float64")  # float64, so that all machines print the same
print(f"two hidden layers of 16 units, {model.parameter_count()} parameters:")
train(model, tl.Tensor(x), classes, 600)

# What has it learned? Its answer on a grid of points, seen from above.
print("\nthe plane as the network sees it:")
across, down = np.linspace(-1.1, 1.1, 45), np.linspace(1.1, -1.1, 21)
grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
with tl.no_grad():
    answers = model(tl.Tensor(grid)).numpy().argmax(axis=1).reshape(21, 45)
for row in answers:
    print("  " + "".join(".#"[answer] for answer in row))
