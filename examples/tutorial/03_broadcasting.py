"""Step 3: what was broadcast forward is summed backward."""

import numpy as np

import tensorlib as tl
from tensorlib.arrays.shapes import sum_to

x = tl.Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)  # (2, 3)
b = tl.Tensor([10.0, 20.0, 30.0], requires_grad=True)  # (3,): added to both rows
s = tl.Tensor([[2.0], [-1.0]], requires_grad=True)  # (2, 1): multiplies all three columns

y = (x + b) * s  # (2, 3)
y.backward(np.ones((2, 3), dtype="float32"))  # the gradient of y.sum()

print("y  =", y.numpy().tolist())
print("dx =", x.grad.numpy().tolist(), " x was not broadcast")
print("db =", b.grad.numpy().tolist(), " b was used in two rows, whose gradients 2 and -1 add up")
print("ds =", s.grad.numpy().tolist(), " s was used in three columns")

# Why: broadcasting is a product with a matrix of zeros and ones, and its gradient the product with the transpose.
copies = np.ones((2, 1))  # (1, 3) becomes (2, 3): every row is a copy
broadcast = np.broadcast_to(b.numpy(), (2, 3))
print("\ncopies @ b equals broadcasting: ", np.array_equal(copies @ b.numpy()[None], broadcast))
dz = np.array([[2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]])  # the gradient that arrives at x + b
print("copies.T @ dz, a sum over rows: ", (copies.T @ dz).tolist())

# An op of the engine that broadcasts says so, and the backward pass sums its gradients by this function.
print("sum_to(dz, (3,)):               ", sum_to(dz, (3,)).tolist())
print("sum_to(dz, (2, 1)):             ", sum_to(dz, (2, 1)).tolist())

# If shapes are not what you think, broadcasting hides it: (2, 1) - (2,) is (2, 2), not two differences.
prediction = tl.Tensor([[1.0], [2.0]], requires_grad=True)
target = tl.Tensor([1.0, 2.0])
wrong = prediction - target
print("\nprediction (2, 1) - target (2,) has shape", wrong.shape, "and values", wrong.numpy().tolist())
tl.square(wrong).mean().backward()
print("gradient of the mean square, though every prediction is right:", prediction.grad.numpy().ravel().tolist())
