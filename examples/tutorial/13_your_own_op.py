"""Step 13: an op of your own, checked: y = log cosh x, which is x^2 / 2 near 0 and |x| - log 2 far from it."""

import math

import numpy as np

import tensorlib as tl


class LogCosh(tl.Function):
    """y = log cosh(x)  =>  dx = dy tanh(x), because (log cosh)' = sinh / cosh."""

    def forward(self, x):
        """Compute the value of a raw array; written so that nothing overflows: cosh(1000) would."""
        self.save(x)
        xp = tl.namespace_of(x)  # numpy or cupy
        size = xp.abs(x)
        return size + xp.log1p(xp.exp(-2 * size)) - math.log(2)

    def backward(self, dy):
        """Return dx: of raw arrays in training; of Tensors, and recorded, for second derivatives."""
        (x,) = self.saved
        return dy * tl.namespace_of(x).tanh(x)


def log_cosh(x):
    """Return log cosh x, elementwise."""
    return LogCosh.apply(x)


x = tl.Tensor([-1000.0, -1.0, 0.0, 1.0], requires_grad=True)
y = log_cosh(x)
print("values   ", " ".join(f"{value:.4f}" for value in y.numpy()))
y.sum().backward()
print("gradients", " ".join(f"{value:.4f}" for value in x.grad.numpy()))

# gradcheck compares first and second derivatives with finite differences, and says how far off they are at worst.
points = np.random.default_rng(0).normal(size=(3, 4))
worst = tl.gradcheck(log_cosh, points)
print("gradcheck: errors below 1e-6:", max(worst) < 1e-6)


# Now plant the two commonest mistakes, and see them found.
class WrongSign(LogCosh):
    """A wrong first derivative."""

    def backward(self, dy):
        """Return a wrong dx."""
        (x,) = self.saved
        return -dy * tl.namespace_of(x).tanh(x)


class NoHistory(LogCosh):
    """A right first derivative, but computed from a bare array, so that nothing of it is recorded."""

    def forward(self, x):
        """Compute the value, and keep the slope as a constant."""
        self.slope = np.tanh(x)
        return super().forward(x)

    def backward(self, dy):
        """Return a dx whose own derivative with respect to x is lost."""
        return dy * self.slope


for mistaken in (WrongSign, NoHistory):
    try:
        tl.gradcheck(mistaken.apply, points, name=mistaken.__name__)
    except tl.GradcheckError as error:
        print(str(error).split(":")[0], "is refused:", "second" if "second" in str(error) else "first", "order")

# The op takes part in everything: here as a loss that one wild point does not spoil. The square would
# find the mean. The slope of log cosh is tanh, which is at most 1, so that no point pulls harder than any other.
data = np.array([0.9, 1.0, 1.1, 1.0, 100.0])
center = tl.Tensor(np.array(5.0), requires_grad=True)
for _ in range(400):
    (slope,) = tl.grad(log_cosh(center - data).mean(), [center])
    center = tl.Tensor(center.numpy() - 0.5 * slope.numpy(), requires_grad=True)
print(f"mean {data.mean():.2f}, center by log cosh {center.item():.2f}")
print(tl.derive(log_cosh(center), names={"center": center}))
