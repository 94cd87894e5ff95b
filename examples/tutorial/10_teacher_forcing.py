"""Step 10: teacher forcing. All positions of a sentence are trained at once, without reading the answer."""

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig, make_batch
from models.text.batching import teacher_forcing
from models.text.tokens import BOS, EOS, PAD

WORDS = {PAD: "<pad>", BOS: "<s>", EOS: "</s>", 4: "I", 5: "have", 6: "a", 7: "cat", 8: "We", 9: "sleep"}
LONG, SHORT = [4, 5, 6, 7], [8, 9]  # I have a cat / We sleep


def text(ids):
    """Return the words of some ids."""
    return " ".join(f"{WORDS[int(i)]:5}" for i in ids)


inputs, outputs = teacher_forcing(LONG)
print("the decoder reads  ", text(inputs))
print("and should predict ", text(outputs))

batch = make_batch([([4, 5, EOS], LONG), ([4, EOS], SHORT)])  # the sources do not matter here
print("\na batch: the shorter sentence is padded")
for row_in, row_out in zip(batch.target_in_BT, batch.target_out_BT, strict=True):
    print("  reads", text(row_in), "  predicts", text(row_out))

tl.seed(0)
model = Transformer(TransformerConfig(6, 10, layers=1, width=16, heads=2, feed_forward=32, dropout=0.0))
logits_BTV = model(batch.source_BS, batch.target_in_BT)  # one pass: a prediction at each of the 5 positions
print("\nlogits (sentences, positions, words):", logits_BTV.shape)

# The loss is the mean surprise -log p(right word) of the words that are there; padding is not counted.
loss = tl.cross_entropy(logits_BTV, batch.target_out_BT, ignore_index=PAD)
log_p = tl.log_softmax(logits_BTV, axis=-1).numpy()
words = [(b, t) for b in range(2) for t in range(5) if batch.target_out_BT[b, t] != PAD]
by_hand = -np.mean([log_p[b, t, batch.target_out_BT[b, t]] for b, t in words])
print(f"loss {loss.item():.3f}, by hand over {len(words)} words {by_hand:.3f}, of a blind guess {np.log(10):.3f}")

# Does position t read the answer, which is the input at t + 1? Change one later word, and look what changes.
changed = batch.target_in_BT.copy()
changed[0, 3] = 9  # "<s> I have a cat" becomes "<s> I have sleep cat"
moved = np.abs(model(batch.source_BS, changed).numpy() - logits_BTV.numpy()).max(axis=-1)[0] > 1e-6
print("\nword 3 of the input was changed; predictions that changed:", moved.astype(int))

# Without teacher forcing the decoder reads its own words, one at a time: five passes in place of one.
memory = model.encode(batch.source_BS[:1])
ids = [BOS]
for _ in range(5):
    logits = model.decode(np.array([ids]), memory)
    ids.append(int(logits.numpy()[0, -1].argmax()))
print("five passes, reading its own words: five words that an untrained model guesses:", len(ids) - 1)
