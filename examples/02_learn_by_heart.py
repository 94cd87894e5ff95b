"""Eight sentences learned by heart: the whole of training on one screen, without a trainer that hides parts of it."""

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.decoding.token_by_token import greedy
from models.text.batching import encode_pairs, make_batch
from models.text.subwords import Tokenizer
from models.text.tokens import PAD
from nn import optim

PAIRS = [
    ("我有一只猫", "I have a cat"),
    ("我有两只猫", "I have two cats"),
    ("他有一只狗", "He has a dog"),
    ("她没有狗", "She doesn't have a dog"),
    ("你喜欢茶吗？", "Do you like tea?"),
    ("我们昨天喝了茶", "We drank tea yesterday"),
    ("他们明天会来", "They will come tomorrow"),
    ("这本书很有意思", "This book is very interesting"),
]

tl.seed(0)
tokenizer = Tokenizer.train(PAIRS, vocabulary_size=400)
config = TransformerConfig(
    source_vocabulary=tokenizer.source_size,
    target_vocabulary=tokenizer.target_size,
    layers=1,
    width=64,
    heads=4,
    feed_forward=128,
    dropout=0.0,
)
model = Transformer(config)
optimizer = optim.Adam(model.named_parameters(), learning_rate=3e-3)
examples = encode_pairs(tokenizer, PAIRS)
batch = make_batch(examples)

for step in range(1, 61):
    # Teacher forcing: the decoder reads "<s> I have a cat" and should predict "I have a cat </s>".
    logits_BTV = model(batch.source_BS, batch.target_in_BT)
    loss = tl.cross_entropy(logits_BTV, batch.target_out_BT, ignore_index=PAD)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step:3}  loss {loss.item():.4f}")

sources = tokenizer.encode_source([source for source, _ in PAIRS])
for (source, _), ids in zip(PAIRS, greedy(model, sources), strict=True):
    print(source, "->", tokenizer.decode_target(ids))
