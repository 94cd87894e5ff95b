"""What to recommend, learned from clicks alone: positives that were observed, and negatives that have to be sampled.

Feedback from clicks is implicit: a click says that a user wants an item, but no click does not say the opposite; most
items were never seen. So there are positives only, and a model that is trained on them alone gives every pair a high
score. The remedy is to draw negatives among the items that a user has not clicked.

The model is matrix factorisation: score(user, item) = <p_u, q_i> + b_i. Two losses compare the score s+ of a clicked
item with the score s- of a sampled one:

    logistic   -log sigma(s+) - log sigma(-s-)      is it a click? (as negative sampling in word2vec)
    BPR        -log sigma(s+ - s-)                  does it rank higher? (Rendle et al. 2009)

Both take the mean over the negatives of a click, so that their number does not change the weight of the positive;
word2vec takes the sum. To this is added a penalty, 0.01 times the squared lengths of p_u and of the q_i that are
compared, for each click: without it, the vectors would fit the clicks that they have seen and no others.

And there are three ways to draw the negatives:

    uniform         any item: mostly unpopular ones, which are easy
    popularity^0.75 popular ones more often: an item must be more than popular to score high
    hard            the 4 best scored of 10 drawn at random: what the model confuses (Zhang et al. 2013)

The clicks are generated, so that the truth is known: 600 users and 400 items in 12 clusters of taste; users click
popular items of their own cluster, and one click in five is on something popular from anywhere. One fifth of the clicks
is kept out. Measured on it: recall@10, the share of these items among the first 10 that are recommended
(clicked ones left out), and AUC, the probability that such an item is ranked above one that was never clicked.

What it shows: recommending what is popular is poor, and both losses come close to what the truth itself reaches. Hard
negatives give the best first 10, uniform ones the best AUC: hard negatives correct the top of the list, which AUC
hardly sees. Drawing popular items more often as negatives takes popularity out of the scores; here, where popular items
are clicked more, that costs recall.
"""

import time

import numpy as np

import tensorlib as tl
from models.text.random_bits import random_bits, uniform
from models.text.sampling import (
    AliasTable,
    FrequencyNegatives,
    HardNegatives,
    KnownPositives,
    PairPositives,
    UniformNegatives,
)
from nn import optim

USERS, ITEMS, CLUSTERS, CLICKS, WIDTH, NEGATIVES, EPOCHS, BATCH = 600, 400, 12, 30, 16, 4, 25, 500
TOP = 10

# ---- clicks ----------------------------------------------------------------------------------------------------------

bits = random_bits(0)
user_cluster = (uniform(bits, USERS) * CLUSTERS).astype(int)
item_cluster = (uniform(bits, ITEMS) * CLUSTERS).astype(int)
popularity = 1 / (1 + uniform(bits, ITEMS) * 20)

clicked = np.zeros((USERS, ITEMS), bool)
for user in range(USERS):
    own = AliasTable(popularity * (item_cluster == user_cluster[user])).draw(bits, CLICKS)
    anything = AliasTable(popularity).draw(bits, CLICKS)
    clicked[user, np.where(uniform(bits, CLICKS) < 0.8, own, anything)] = True

users, items = np.nonzero(clicked)
is_test = uniform(bits, len(users)) < 0.2
train_users, train_items, test_users, test_items = users[~is_test], items[~is_test], users[is_test], items[is_test]
in_training = np.zeros_like(clicked)
in_training[train_users, train_items] = True
print(f"{len(train_users):,} clicks to learn from, {len(test_users):,} kept out, {USERS} users, {ITEMS} items")

# ---- training --------------------------------------------------------------------------------------------------------

known = KnownPositives(train_users, train_items, size=ITEMS)  # never drawn as negatives
counts = np.bincount(train_items, minlength=ITEMS)


def factorise(loss, kind, seed=0):
    """Train the vectors of users and items; return the scores of all pairs."""
    start = random_bits(seed, 1)
    sizes = ((USERS, WIDTH), (ITEMS, WIDTH), (ITEMS, 1))
    draws = [0.1 * (uniform(start, rows * width).reshape(rows, width) - 0.5) for rows, width in sizes]
    p, q, b = (tl.Tensor(drawn.astype("float32"), requires_grad=True) for drawn in draws)
    optimizer = optim.Adam([p, q, b], learning_rate=0.01)

    def scores(anchors):
        return p.numpy()[anchors] @ q.numpy().T + b.numpy()[:, 0]

    uniformly = UniformNegatives(ITEMS, known)
    samplers = {
        "uniform": uniformly,
        "popularity^0.75": FrequencyNegatives(counts, 0.75, known),
        "hard": HardNegatives(scores, among=uniformly, candidates=10),
    }
    positives, negatives = PairPositives(train_users, train_items), samplers[kind]
    for epoch in range(EPOCHS):
        anchors, chosen = positives.draw(random_bits(seed, 2, epoch))
        for step, at in enumerate(range(0, len(anchors), BATCH)):
            who, what = anchors[at : at + BATCH], chosen[at : at + BATCH]
            others = negatives.draw(random_bits(seed, 3, epoch, step), who, NEGATIVES)
            candidates = np.column_stack([what, others])  # the positive first
            s = tl.sampled_linear(tl.embedding(p, who), q, candidates) + tl.embedding(b, candidates)[..., 0]
            if loss == "BPR":
                value = -tl.log_sigmoid(s[:, :1] - s[:, 1:]).mean()
            else:
                value = -(tl.log_sigmoid(s[:, 0]).mean() + tl.log_sigmoid(-s[:, 1:]).mean())
            penalty = ((tl.embedding(p, who) ** 2).sum() + (tl.embedding(q, candidates) ** 2).sum()) / len(who)
            optimizer.zero_grad()
            (value + 0.01 * penalty).backward()
            optimizer.step()
    return scores(np.arange(USERS))


# ---- measuring -------------------------------------------------------------------------------------------------------


def measured(scores):
    """Return recall@10 and AUC on the clicks that were kept out."""
    candidates = np.where(in_training, -np.inf, scores)
    best = np.argsort(-candidates, axis=1)[:, :TOP]
    hit = np.array([item in best[user] for user, item in zip(test_users, test_items, strict=True)])
    wins = []
    for user, item in zip(test_users, test_items, strict=True):
        never = scores[user, ~clicked[user]]
        wins.append((scores[user, item] > never).mean() + (scores[user, item] == never).mean() / 2)
    return hit.mean(), np.mean(wins)


def row(name, scores, seconds=None):
    """Print one line of the table."""
    recall, auc = measured(scores)
    print(f"{name:32} recall@10 {recall:5.1%}   AUC {auc:.3f}" + ("" if seconds is None else f"   {seconds:4.1f} s"))


row("popularity, the same for all", np.tile(counts.astype(float), (USERS, 1)))
own_share = popularity * (item_cluster == user_cluster[:, None])
truth = 0.8 * own_share / own_share.sum(axis=1, keepdims=True) + 0.2 * popularity / popularity.sum()
row("the truth that made the clicks", truth)
with tl.threads():
    for loss in ("logistic", "BPR"):
        for kind in ("uniform", "popularity^0.75", "hard"):
            began = time.monotonic()
            scores = factorise(loss, kind)
            row(f"{loss}, {kind}", scores, time.monotonic() - began)

user = 0
best = np.argsort(-np.where(in_training[user], -np.inf, scores[user]))[:TOP]
own = (item_cluster[best] == user_cluster[user]).sum()
print(
    f"user {user} likes cluster {user_cluster[user]}; recommended: " + " ".join(f"{i}({item_cluster[i]})" for i in best)
)
print(f"{own} of {TOP} recommended items are from the cluster that the user likes")
