"""Step 12: a tiny translator that learns 我有一只猫 -> I have a cat, and two ways to read a translation out of it."""

import math

import tensorlib as tl
from models import Transformer, TransformerConfig, beam_search, greedy, make_batch
from models.text.tokens import EOS, PAD
from nn import optim

# 我有一只猫 itself is not among them: the words are, in other sentences.
PAIRS = [
    ("我有一只狗", "I have a dog"),
    ("我有两只猫", "I have two cats"),
    ("我有两只狗", "I have two dogs"),
    ("你有一只猫", "You have a cat"),
    ("你有一只狗", "You have a dog"),
    ("你有两只猫", "You have two cats"),
    ("我们有一只猫", "We have a cat"),
    ("我们有一只狗", "We have a dog"),
    ("我看见一只猫", "I see a cat"),
    ("我看见一只狗", "I see a dog"),
    ("你看见一只猫", "You see a cat"),
    ("你看见两只狗", "You see two dogs"),
]
NEW = "我有一只猫"

# The simplest vocabularies: Chinese characters and English words. Ids below 4 are padding, unknown, <s> and </s>.
CHARACTERS = {c: 4 + i for i, c in enumerate(sorted({c for source, _ in PAIRS for c in source}))}
WORDS = {w: 4 + i for i, w in enumerate(sorted({w for _, target in PAIRS for w in target.split()}))}


def encode(source):
    """Return the ids of a source sentence, which ends with </s>."""
    return [*(CHARACTERS[c] for c in source), EOS]


def decode(ids):
    """Return the words of some ids."""
    names = {i: word for word, i in WORDS.items()}
    return " ".join(names.get(int(i), "?") for i in ids)


tl.seed(0)
model = Transformer(
    TransformerConfig(4 + len(CHARACTERS), 4 + len(WORDS), layers=1, width=32, heads=4, feed_forward=64, dropout=0.1)
)
model.astype("float64")  # so that all machines print the same
optimizer = optim.Adam(model.named_parameters(), learning_rate=3e-3)
batch = make_batch([(encode(source), [WORDS[w] for w in target.split()]) for source, target in PAIRS])

for step in range(1, 61):
    loss = tl.cross_entropy(model(batch.source_BS, batch.target_in_BT), batch.target_out_BT, ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step in (5, 10, 20, 40, 60):
        print(f"step {step:3}  loss {loss.item():.1f}  {NEW} -> {decode(greedy(model, [encode(NEW)])[0])}")

# Greedy takes the likeliest next token, and never looks back. A beam keeps the best few unfinished sentences.
(found,) = beam_search(model, [encode(NEW)], beam=4, n_best=2)
print("\na beam of 4 finds:")
for hypothesis in found:
    print(f"  {decode(hypothesis.tokens)}")
print("the best has more than half of the probability:", math.exp(found[0].log_prob) > 0.5)

# A case that greedy gets wrong: the likeliest first word need not begin the likeliest sentence.
FIRST = {"a": 0.6, "the": 0.4}
SECOND = {"a": {"cat": 0.5, "dog": 0.5}, "the": {"cat": 0.9, "dog": 0.1}}
likeliest = max(FIRST, key=FIRST.get)
word = max(SECOND[likeliest], key=SECOND[likeliest].get)
print(f"\ngreedy: {likeliest} {word}, probability {FIRST[likeliest] * SECOND[likeliest][word]:.2f}")
every = {(x, y): FIRST[x] * SECOND[x][y] for x in FIRST for y in SECOND[x]}
best = max(every, key=every.get)
print(f"a beam of 2: {' '.join(best)}, probability {every[best]:.2f}")
