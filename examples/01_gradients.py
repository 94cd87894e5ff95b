"""The engine in twenty lines: values, gradients, gradients of gradients, and a check of all of them."""

import numpy as np

import tensorlib as tl

x = tl.Tensor([[1.0, 2.0], [3.0, 4.0]])
w = tl.Tensor([[0.5, -1.0], [0.25, 1.0]], requires_grad=True)

y = tl.softmax(x @ w, axis=-1)
loss = -tl.log(y[:, 0]).mean()
loss.backward()  # fills .grad of every leaf that requires a gradient, and releases the graph
print("loss", loss.item())
print("dloss/dw", w.grad)

# grad() returns gradients and does not change .grad; with create_graph, its results can be differentiated in turn.
a = tl.Tensor(2.0, requires_grad=True)
(first,) = tl.grad(a**3, [a], create_graph=True)  # 3 a^2 = 12
(second,) = tl.grad(first, [a])  # 6 a = 12
print("a^3 at 2: first derivative", first.item(), "second", second.item())

# gradcheck compares the first and second derivatives of any function with finite differences.
worst = tl.gradcheck(lambda x, w: tl.softmax(x @ w), np.random.randn(3, 4), np.random.randn(4, 5))
print("largest relative errors:", worst)
