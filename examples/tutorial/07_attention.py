"""Step 7: attention on "I have a cat", with every matrix printed, and the causal mask of the textbook."""

import math

import numpy as np

import nn
import tensorlib as tl

WORDS = ["<s>", "I", "have", "a", "cat"]  # what a decoder reads: T = 5 positions
T, D = len(WORDS), 4  # each word is a vector of width D

rng = np.random.default_rng(1)
x = tl.Tensor(rng.normal(size=(T, D)), requires_grad=True)
Wq, Wk, Wv = (tl.Tensor(rng.normal(size=(D, D)) / math.sqrt(D)) for _ in range(3))


def show(title, matrix):
    """Print a matrix with a word before each row."""
    print(title)
    for word, row in zip(WORDS, matrix, strict=True):
        print(f"  {word:5}", "  ".join(f"{number:5.2f}" for number in row))


show("x (5, 4): one row for each word", x.numpy())
q, k, v = x @ Wq, x @ Wk, x @ Wv  # what a word asks for, what it offers, and what it passes on
show("q = x Wq (5, 4)", q.numpy())
show("k = x Wk (5, 4)", k.numpy())
show("v = x Wv (5, 4)", v.numpy())

scores = q @ k.swapaxes(0, 1) / math.sqrt(D)  # scores[t, s]: how well the question of t fits the offer of s
show("scores = q kT / sqrt(4) (5, 5)", scores.numpy())

visible = nn.causal_mask(T)  # row t may look at columns 0 to t: no word reads a later one
show("the causal mask (5, 5): 1 is visible", visible.numpy())

masked = tl.where(visible, scores, -math.inf)  # exp(-inf) is 0: a hidden word gets no weight
weights = tl.softmax(masked, axis=-1)
show("weights = softmax(masked scores) (5, 5)", weights.numpy())
print("each row sums to 1:", np.allclose(weights.numpy().sum(axis=1), 1))

y = weights @ v  # each word becomes a mean of the values that it may see
show("y = weights v (5, 4)", y.numpy())

# The graph of what was computed, with the names of the matrices. Open the picture in a browser.
tl.draw(y, "attention.svg", names={"x": x, "q": q, "k": k, "v": v, "scores": scores, "weights": weights, "y": y})

# The engine has all of this as one op, which never holds a mask or the weights of a long text.
one_op = tl.scaled_dot_product_attention(q, k, v, causal=True)
print("the engine's one op gives the same:", np.allclose(one_op.numpy(), y.numpy()))

# Not only do we believe that row t does not depend on later words: it is proved, from the recorded graph.
proved = tl.depends(y, on=x, axes=[0], axes_of_y=[0]).array
print("row t of y depends exactly on words 0 to t:", np.array_equal(proved, visible.numpy()))
