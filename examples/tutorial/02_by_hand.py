"""Step 2: the gradients of a network of two layers, by hand with NumPy, and by the engine."""

import numpy as np

import tensorlib as tl

rng = np.random.default_rng(0)
x, t = rng.normal(size=(5, 3)), rng.normal(size=(5, 2))  # five inputs with three features, and their targets
W1, b1 = rng.normal(size=(3, 4)), np.zeros(4)
W2, b2 = rng.normal(size=(4, 2)), np.zeros(2)

# ---- by hand: forward ----
a = x @ W1 + b1
h = np.tanh(a)
y = h @ W2 + b2
loss = ((y - t) ** 2).mean()

# ---- by hand: backward, the last line of forward first; dv stands for dloss/dv and has the shape of v ----
dy = 2 * (y - t) / y.size  # mean: each of the 10 elements has weight 1/10
dW2 = h.T @ dy
db2 = dy.sum(axis=0)  # b2 was added to each of the five rows
dh = dy @ W2.T
da = dh * (1 - h**2)  # tanh' = 1 - tanh^2
dW1 = x.T @ da
db1 = da.sum(axis=0)

# ---- by the engine: the forward lines only ----
parameters = [tl.Tensor(array, requires_grad=True) for array in (W1, b1, W2, b2)]
V1, c1, V2, c2 = parameters
engine_loss = tl.square(tl.tanh(tl.Tensor(x) @ V1 + c1) @ V2 + c2 - t).mean()
engine_loss.backward()

print(f"loss by hand {loss:.6f}, by the engine {engine_loss.item():.6f}")
for name, by_hand, parameter in zip(["W1", "b1", "W2", "b2"], [dW1, db1, dW2, db2], parameters, strict=True):
    gradient = parameter.grad.numpy()
    print(f"d{name}: shape {by_hand.shape!s:7} norm {np.linalg.norm(by_hand):.4f}", end="  ")
    print("equal to the engine's" if np.allclose(by_hand, gradient, rtol=1e-12) else "DIFFERENT")

# A formula that has the right shape can still be wrong. A third opinion, from the definition of a derivative:
step = 1e-6
losses = []
for sign in (1, -1):
    moved = W1.copy()
    moved[0, 0] += sign * step
    losses.append(((np.tanh(x @ moved + b1) @ W2 + b2 - t) ** 2).mean())
print(f"dW1[0, 0]: by hand {dW1[0, 0]:.6f}, by finite differences {(losses[0] - losses[1]) / (2 * step):.6f}")
