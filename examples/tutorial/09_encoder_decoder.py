"""Step 9: encoder and decoder. The source becomes a memory, whose keys and values are computed only once."""

import numpy as np

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.text.tokens import BOS, EOS, PAD

SOURCE = [4, 5, 6, 7, 8, EOS]  # 我 有 一 只 猫 </s>
TARGET = [BOS, 4, 5, 6, 7]  # <s> I have a cat

tl.seed(0)
config = TransformerConfig(9, 8, layers=2, width=16, heads=4, feed_forward=32, dropout=0.0)
model = Transformer(config)
source_BS, target_BT = np.array([SOURCE]), np.array([TARGET])

# The encoder reads the whole source: each position sees all others.
memory_BSD = model.encode(source_BS)
print("memory: a vector for each of the 6 source positions:", memory_BSD.shape)

# The decoder attends to itself, with a causal mask, and to the memory: queries from the target, keys from the source.
cross = model.decoder.layers[0].cross_attention
x_BTD = tl.normal((1, 5, 16))
y_BTD, weights_BHTS = cross(x_BTD, memory_BSD, return_weights=True)
print("cross-attention weights (batch, heads, target, source):", weights_BHTS.shape)
logits_BTV = model.decode(target_BT, memory_BSD)
print("logits (batch, target, words):", logits_BTV.shape)

# Who depends on whom? From the recorded graph, for the target's and the source's words as they were embedded.
source_words = model.source_embedding(source_BS)
encoded = model.encoder(source_words, None)
print("\nmemory position s depends on source position:")
print(tl.depends(encoded, on=source_words, axes=[1], axes_of_y=[1]).array.astype(int))
target_words = model.target_embedding(target_BT)
decoded = model.decoder(target_words, memory_BSD, None)
print("decoder position t depends on target position:")
print(tl.depends(decoded, on=target_words, axes=[1], axes_of_y=[1]).array.astype(int))

# Decoding word by word. Keys and values of the memory don't change, so they are computed before the first word, and
# those of earlier target words are kept. A step then computes one position only.
state = model.start(memory_BSD)
keys, values = state.cross[0]
print("\nkeys of the memory in layer 0 (batch, heads, source, head width):", keys.shape)
steps = []
for token in TARGET:
    logits_BV, state = model.decode_step(np.array([token]), state)
    steps.append(logits_BV.numpy()[0])
print("five steps give the logits of the one pass:", np.allclose(steps, logits_BTV.numpy()[0], atol=1e-5))

T, S, D = 50, 50, 512  # multiplications to project keys and values in one layer, for a sentence of 50 words
anew = sum(2 * (t + S) * D * D for t in range(1, T + 1))
kept = 2 * (T + S) * D * D
print(f"to write {T} words, keys and values computed anew each time cost {anew / kept:.0f} times as much")

# A source that is padded, as the shorter ones of a batch are, must give the same. The mask of its padding sees to it.
padded_BS = np.array([[*SOURCE, PAD, PAD]])
with_padding = model(padded_BS, target_BT).numpy()
print("\npadding changes nothing:", np.allclose(with_padding, logits_BTV.numpy(), atol=1e-5))
everything = tl.Tensor(np.ones(padded_BS.shape, bool))  # a wrong mask, which hides nothing
unmasked = model.decode(target_BT, model.encode(padded_BS, everything)).numpy()
print("without the mask it would:", not np.allclose(unmasked, logits_BTV.numpy(), atol=1e-5))
