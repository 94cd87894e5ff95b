"""Step 1: a chain of two additions, and why the sum of a gradient flows on once."""

import tensorlib as tl

a = tl.Tensor(3.0, requires_grad=True)
b = a + a
c = b + b
print("values:   ", f"a = {a.item()}, b = {b.item()}, c = {c.item()}")

# What backward() will do, as equations. Each op passes a gradient to each of its inputs, and a is an input twice.
print(tl.derive(c, names={"a": a, "b": b, "c": c}))

# A film of the same: open the page in a browser, and press the right arrow.
tl.step_through(c, "chain.html", names={"a": a, "b": b, "c": c})

b.retain_grad()  # otherwise only leaves such as a keep their gradients
c.backward()
print()
print("gradients:", f"dc/db = {b.grad.item()}, dc/da = {a.grad.item()}")


# A mistake that every first engine has: pass on each contribution as soon as it arrives. It is right, but b's
# history is walked once for each path from c, so the work doubles with every addition.
def walked(depth):
    """Return how often an op is visited when every contribution is passed on at once, in a chain of additions."""
    return 0 if depth == 0 else 1 + 2 * walked(depth - 1)


for depth in (2, 10, 20):
    x = y = tl.Tensor(1.0, requires_grad=True)
    for _ in range(depth):
        y = y + y
    graph = tl.graph(y)
    y.backward()
    print(f"{depth:2} additions: dy/dx = {x.grad.item():9,.0f},  {walked(depth):9,} visits by paths,", end=" ")
    print(f"{len(graph.nodes):2} if sums flow once")
