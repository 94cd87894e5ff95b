"""Your own op: its formula and gradient, a check to second order, two mistakes that the check finds, and its use."""

import numpy as np

import tensorlib as tl
from nn import Linear, Module, optim


# Squareplus (Barron 2021), a smooth relu. Like the engine's own ops, it is a subclass of tl.Function with two methods.
class Squareplus(tl.Function):
    """y = (x + sqrt(x^2 + b)) / 2.

    With r = sqrt(x^2 + b):  dr/dx = x / r  =>  dy/dx = (1 + x / r) / 2 = (r + x) / (2 r) = y / r,  and  r = 2 y - x.
    """

    def forward(self, x, b):
        """Compute the value from raw arrays of NumPy or CuPy; options are keyword arguments."""
        y = (x + tl.namespace_of(x).sqrt(x * x + b)) / 2
        self.save(x, y)  # inputs or outputs that backward needs
        return y

    def backward(self, dy):
        """Return dx. The same formula serves arrays and, for second derivatives, Tensors."""
        x, y = self.saved
        return dy * y / (2 * y - x)


def squareplus(x, b=4.0):
    """Return (x + sqrt(x^2 + b)) / 2, elementwise."""
    return Squareplus.apply(x, b=b)


print("squareplus of -2, 0, 2:", squareplus(tl.Tensor([-2.0, 0.0, 2.0])).numpy())

# Compare first and second derivatives with finite differences (the default is order=2).
points = np.random.default_rng(0).normal(size=(3, 4))
print("largest relative errors:", tl.gradcheck(squareplus, points))


class Slip(Squareplus):
    """A first mistake: a wrong sign in the gradient."""

    def backward(self, dy):
        """Return a wrong gradient."""
        x, y = self.saved
        return dy * y / (2 * y + x)


class Frozen(Squareplus):
    """A second mistake, harder to find because every first derivative is right: backward treats r as a constant.

    So the gradient of the gradient is wrong. Intermediate results belong in self.statistics, which is None when second
    derivatives are wanted; backward must then compute the results again from the saved values.
    """

    def forward(self, x, b):
        """Compute the value."""
        self.r = tl.namespace_of(x).sqrt(x * x + b)
        y = (x + self.r) / 2
        self.save(y)
        return y

    def backward(self, dy):
        """Return dx, from an r that has no history."""
        (y,) = self.saved
        return dy * y / self.r


for mistaken in (Slip, Frozen):
    try:
        tl.gradcheck(lambda x, op=mistaken: op.apply(x, b=4.0), points, name=mistaken.__name__)
    except tl.GradcheckError as error:
        print(error)


# The op can now be used like any other: in a module, in training, on every backend.
class Curve(Module):
    """A curve through points: y = W2 squareplus(W1 x + b1) + b2."""

    def __init__(self):
        self.hidden, self.output = Linear(1, 16), Linear(16, 1)

    def forward(self, x):
        """Return y (..., 1) for x (..., 1)."""
        return self.output(squareplus(self.hidden(x)))


tl.seed(0)
model = Curve()
x = tl.Tensor(np.linspace(-2, 2, 64, dtype="float32")[:, None])
target = tl.Tensor(np.sin(2 * x.numpy()))
optimizer = optim.Adam(model.named_parameters(), learning_rate=0.02)
for step in range(1, 401):
    loss = tl.square(model(x) - target).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step}  mean squared error {loss.item():.4f}")
