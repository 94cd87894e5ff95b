"""Step 6: words become vectors (embeddings), and their order becomes part of the vectors (positions)."""

import numpy as np

import tensorlib as tl
from nn.positions import sinusoids

WORDS = ["a", "bites", "cat", "dog", "the"]
IDS = {word: i for i, word in enumerate(WORDS)}

rng = np.random.default_rng(0)
table = tl.Tensor(rng.normal(size=(5, 4)), requires_grad=True)  # a row of D = 4 numbers for each word

# An embedding looks rows up. It is the product with a matrix of zeros and ones, without the work of the product.
ids = np.array([IDS[word] for word in ["the", "cat", "bites", "the", "dog"]])
vectors = tl.embedding(table, ids)
one_hot = np.eye(5)[ids]
print("looked up", vectors.shape, "equals one_hot @ table:", np.array_equal(vectors.numpy(), one_hot @ table.numpy()))

# So its gradient is the product with the transpose: rows add up where a word occurs twice, and are 0 where it does not.
vectors.sum().backward()
for word, row in zip(WORDS, table.grad.numpy(), strict=True):
    print(f"  gradient of the row of {word:5}", row)

# Without positions, a mean of words is the same in any order: who bites whom is lost.
first, second = ([IDS[w] for w in text.split()] for text in ("the dog bites a cat", "a cat bites the dog"))
bag = [table.numpy()[row].mean(axis=0) for row in (first, second)]
print("\nthe two sentences have the same mean vector:", np.allclose(*bag))

# Positions are vectors too, and are added to the words. PE[t, 2i] = sin(t w_i), PE[t, 2i+1] = cos(t w_i).
positions = sinusoids(6, 4)
print("\nsinusoids: a row for each position; the left pair turns fast, the right pair slowly")
for t, row in enumerate(positions):
    print(f"  t = {t} ", "  ".join(f"{number:5.2f}" for number in row))

x, y = (table.numpy()[row] + positions[:5] for row in (first, second))
print("\n'dog' at position 1 and 'dog' at position 4 now differ:", not np.allclose(x[1], y[4]))

# Why sines: how alike two positions are depends on their distance alone.
wide = sinusoids(60, 64)
alike = wide @ wide.T / 32  # cos a cos b + sin a sin b = cos(a - b), averaged over 32 speeds
print("\nlikeness of positions (t, t + distance):")
for distance in (0, 1, 5, 20):
    print(f"  distance {distance:2}:", *(f"{alike[t, t + distance]:.3f}" for t in (0, 10, 30)))

# And a shift is a rotation of each pair, the same for all t: "three words to the left" is a linear map.
angle = 3 * 1.0  # the first pair has w = 1
turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
print("\nPE[t + 3] = PE[t] turned, for all t:", np.allclose(wide[:-3, :2] @ turn.T, wide[3:, :2]))
