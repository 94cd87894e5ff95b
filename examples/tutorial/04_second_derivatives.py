"""Step 4: a gradient is a computation too, so it can be differentiated: the derivatives of tanh up to the fifth."""

import math
from importlib.util import find_spec

import numpy as np

import tensorlib as tl

# create_graph records the backward pass, so that its result has a history like any other.
x = tl.Tensor(2.0, requires_grad=True)
(first,) = tl.grad(x**3, [x], create_graph=True)
(second,) = tl.grad(first, [x])
print("x^3 at 2: 3 x^2 =", first.item(), "and 6 x =", second.item())


def derivatives(f, points, highest):
    """Return the arrays of f, f', ..., f^(highest) at these points."""
    x = tl.Tensor(points, requires_grad=True)
    y = f(x)
    found = [y.numpy()]
    for _ in range(highest):
        # Each element of y depends on its own x only, so the gradient of the sum holds the derivative at each point.
        (y,) = tl.grad(y.sum(), [x], create_graph=True)
        found.append(y.numpy())
    return found


points = np.linspace(-3, 3, 121)
curves = derivatives(tl.tanh, points, highest=5)

print("\n   x " + "".join(f"  order {n}" for n in range(6)))
for i in range(0, 121, 20):
    print(f"{points[i]:4.0f} " + "".join(f"{curve[i] + 0.0:9.3f}" for curve in curves))

# Known from a table: with y = tanh x, y' = 1 - y^2, y'' = -2 y y', y''' = -2 y'^2 - 2 y y''.
y, d1, d2, d3 = curves[:4]
print("\nequal to the formulas:", *(np.allclose(a, b) for a, b in [(d1, 1 - y**2), (d2, -2 * y * d1)]), end=" ")
print(np.allclose(d3, -2 * d1**2 - 2 * y * d2))

# At 0 the derivatives are the Taylor series, tanh x = x - x^3/3 + 2 x^5/15 - ...
series = [f"{curve[60] / math.factorial(n) + 0.0:.6f}" for n, curve in enumerate(curves)]
print("Taylor coefficients at 0:", *series)

# The price: the record of a derivative is longer than that of the function.
x = tl.Tensor(0.5, requires_grad=True)
y = tl.tanh(x)
sizes = []
for _ in range(5):
    sizes.append(len(tl.graph(y).nodes))
    (y,) = tl.grad(y, [x], create_graph=True)
print("ops recorded for orders 0 to 4:", sizes)

if find_spec("matplotlib"):  # from the extra `plot`
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for n, curve in enumerate(curves[:5]):
        axes.plot(points, curve, label=f"order {n}")
    axes.set(xlabel="x", title="tanh and its derivatives")
    axes.legend()
    figure.savefig("tanh.svg")
