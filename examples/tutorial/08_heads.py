"""Step 8: several heads. One head has one set of weights; two heads can look at two places at once."""

import numpy as np

import nn
import tensorlib as tl
from nn.positions import sinusoids

WORDS = ["<s>", "I", "have", "a", "cat"]
T = len(WORDS)


def show(title, matrix):
    """Print a matrix with a word before each row."""
    print(title)
    for word, row in zip(WORDS, matrix, strict=True):
        print(f"  {word:5}", "  ".join(f"{number:5.2f}" for number in row))


# Two heads made by hand. The queries of the first ask for the position before: PE[t] turned back by one step.
PE = tl.Tensor(sinusoids(T + 1, 16)[1:])
before = tl.Tensor(sinusoids(T + 1, 16)[:-1])
sharp = 20.0  # large scores make softmax choose
visible = nn.causal_mask(T)


def weights_of(q, k):
    """Return the weights (T, T) of causal attention."""
    return tl.softmax(tl.where(visible, q @ k.swapaxes(0, 1), -np.inf), axis=-1)


previous = weights_of(before * sharp, PE)
show("head 1 looks at the word before:", previous.numpy())
start = tl.Tensor(np.eye(T)[:, :1])  # a key that says "I am the first"
first = weights_of(tl.Tensor(np.full((T, 1), sharp)), start)
show("head 2 looks at the first word:", first.numpy())

values = tl.Tensor(np.arange(T, dtype=float)[:, None])  # the value of a word is its number, to see where it came from
both = tl.concatenate([previous @ values, first @ values], axis=1)
show("the two heads side by side, word numbers that they fetched:", both.numpy())
# One head has one row of weights for each word. At best it gives half of them to each place, and fetches a mean: from
# 1.5 nobody can tell whether it was 0 and 3, or 1 and 2.
one = (previous + first) / 2
show("one head that looks at both places:", (one @ values).numpy())

# In a model the heads are learned. All are computed by the same products: the width D = 8 is cut into H pieces.
tl.seed(0)
x_BTD = tl.normal((1, T, 8))
print("\nwidth 8:")
for heads in (1, 2, 4):
    attention = nn.MultiHeadAttention(width=8, heads=heads)
    y_BTD, weights_BHTS = attention(x_BTD, causal=True, return_weights=True)
    print(f"  H = {heads}, head width {8 // heads}: {attention.parameter_count()} parameters, weights", end=" ")
    print(weights_BHTS.shape, "output", y_BTD.shape)

# The same step by step: project, cut, attend in each head, put side by side, project.
q_BHTK, k_BHTK, v_BHTK = attention.queries_keys_values(x_BTD)
print("\nqueries of the 4 heads:", q_BHTK.shape)
scores_BHTT = q_BHTK @ k_BHTK.swapaxes(-1, -2) / np.sqrt(2)
heads_BHTK = tl.softmax(tl.where(visible, scores_BHTT, -np.inf), axis=-1) @ v_BHTK
side_by_side_BTD = heads_BHTK.transpose(0, 2, 1, 3).reshape(1, T, 8)
by_hand_BTD = attention.output(side_by_side_BTD)
print("by hand as by the layer:", np.allclose(by_hand_BTD.numpy(), y_BTD.numpy(), atol=1e-6))
