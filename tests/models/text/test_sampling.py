"""Samplers of positives and negatives: their distributions, what they exclude, and that seed and epoch decide all."""

import doctest

import numpy as np
import pytest

import models.text.random_bits
import models.text.sampling
from models.text.random_bits import permutation, random_bits, uniform
from models.text.sampling import (
    NO_TOKEN,
    AliasTable,
    FrequencyNegatives,
    HardNegatives,
    InBatchNegatives,
    KnownPositives,
    PairPositives,
    Subsampling,
    UniformNegatives,
    WindowPositives,
)

DRAWS = 200_000


def weights(kind, count=37):
    numbers = {
        "equal": np.ones(count),
        "zipf": 1 / np.arange(1, count + 1),
        "zeros": np.arange(count) % 3,
        "one": (np.arange(count) == 4) * 1.0,
        "huge": 10.0 ** np.linspace(-150, 150, count),
    }
    return numbers[kind]


def frequencies(items, size):
    return np.bincount(items.ravel(), minlength=size) / items.size


def assert_distributed(items, expected):
    """Each frequency is within five standard deviations of its expected value."""
    tolerance = 5 * np.sqrt(expected * (1 - expected) / items.size) + 1e-12
    assert (np.abs(frequencies(items, len(expected)) - expected) <= tolerance).all()


@pytest.mark.parametrize("module", [models.text.sampling, models.text.random_bits])
def test_the_examples_run(module):
    results = doctest.testmod(module, extraglobs={"np": np})
    assert results.attempted > 0 and results.failed == 0


# ---- the alias method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["equal", "zipf", "zeros", "one", "huge"])
def test_the_alias_table_holds_exactly_the_given_probabilities(kind):
    w = weights(kind)
    table = AliasTable(w)
    np.testing.assert_allclose(table.probabilities(), w / w.sum(), rtol=0, atol=1e-15)
    assert ((table.height_N >= 0) & (table.height_N <= 1)).all()
    items = table.draw(random_bits(1), DRAWS)
    assert_distributed(items, w / w.sum())
    assert (w[np.unique(items)] > 0).all()


def test_the_alias_table_of_many_words():
    w = weights("zipf", 50_000) ** 0.75
    np.testing.assert_allclose(AliasTable(w).probabilities(), w / w.sum(), rtol=1e-9)
    assert AliasTable([5e-324, 0]).probabilities().tolist() == [1, 0]


@pytest.mark.parametrize("bad", [[], [0.0, 0.0], [1.0, -1.0], [1.0, np.nan], [np.inf], [[1.0]], [1e308, 1e308]])
@pytest.mark.parametrize("sampler", [AliasTable, FrequencyNegatives, lambda w: Subsampling(w, 1e-3)])
def test_weights_that_are_no_distribution_are_refused(sampler, bad):
    with pytest.raises(ValueError, match="at least 0, with a finite sum above 0, is required"):
        sampler(bad)


# ---- negatives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0, 0.75, 1])
def test_negatives_by_frequency(power):
    counts = np.array([1000, 100, 10, 1])
    items = FrequencyNegatives(counts, power).draw(random_bits(2), np.zeros(DRAWS // 5, np.int64), 5)
    assert items.shape == (DRAWS // 5, 5)
    assert_distributed(items, counts**power / (counts**power).sum())


def samplers(known):
    counts = np.array([50, 20, 10, 5, 3, 1])
    return {
        "uniform": (UniformNegatives(6, known), np.ones(6)),
        "frequency": (FrequencyNegatives(counts, known=known), counts**0.75),
    }


@pytest.mark.parametrize("name", ["uniform", "frequency"])
@pytest.mark.parametrize("known_items", [[0], [0, 1, 2], [0, 1, 2, 3, 4], [5]])
def test_known_positives_are_excluded_and_the_others_keep_their_proportions(name, known_items):
    """With [0, 1, 2, 3, 4] and frequencies, 98 % of the draws collide, so that the last resort has a part in it."""
    sampler, w = samplers(KnownPositives([7] * len(known_items), known_items, size=6))[name]
    items = sampler.draw(random_bits(3), [7] * (DRAWS // 50) + [8] * (DRAWS // 50), 5)
    w = w.astype(float)
    assert_distributed(items[DRAWS // 50 :], w / w.sum())
    w[known_items] = 0
    assert_distributed(items[: DRAWS // 50], w / w.sum())


def test_an_anchor_that_has_every_item_is_an_error():
    known = KnownPositives([1, 1, 1], [0, 1, 2], size=3)
    with pytest.raises(ValueError, match="anchor 1 has all"):
        UniformNegatives(3, known).draw(random_bits(0), [0, 1], 1)


def test_known_pairs():
    known = KnownPositives([3, 0, 3, 3], [1, 4, 0, 1], size=5)
    table = np.array([[(a == 3 and i in (0, 1)) or (a, i) == (0, 4) for i in range(5)] for a in range(5)])
    assert (known.contains(np.arange(5), np.tile(np.arange(5), (5, 1))) == table).all()
    assert [known.of(a).tolist() for a in range(5)] == [[4], [], [], [0, 1], []]
    assert not KnownPositives([], [], size=5).contains([1], [[2, 3]]).any()
    for item in (-1, 5):
        with pytest.raises(ValueError, match=rf"items in 0..4 are required; got {item}..{item}"):
            known.contains([0], [[item]])
    with pytest.raises(ValueError, match=r"items in 0..4 are required; got 5..5"):
        KnownPositives([0], [5], size=5)
    with pytest.raises(ValueError, match="among the same 4 items"):
        UniformNegatives(4, known)


def test_rows_of_a_batch_as_negatives():
    drawn = InBatchNegatives().draw([4, 6, 6, 5], 3)
    assert drawn.tolist() == [[6, 6, 5], [6, 5, 4], [5, 4, 6], [4, 6, 6]]
    assert InBatchNegatives().draw([4, 5, 6], 1).tolist() == [[5], [6], [4]]
    assert InBatchNegatives().draw([], 0).shape == (0, 0)
    with pytest.raises(ValueError, match="at most 2 of 3 rows are required; got 3"):
        InBatchNegatives().draw([4, 5, 6], 3)


def test_hard_negatives_are_the_best_that_are_no_positives():
    scores = uniform(random_bits(5), 20 * 50).reshape(20, 50)
    anchors, positives = np.repeat(np.arange(20), 3), np.tile([4, 9, 30], 20)
    known = KnownPositives(anchors, positives, size=50)
    picked = HardNegatives(lambda a: scores[a], known).draw(random_bits(0), np.arange(20), 5)
    for row, items in zip(scores, picked, strict=True):
        best = [i for i in np.argsort(-row).tolist() if i not in (4, 9, 30)][:5]
        assert items.tolist() == best
    every = HardNegatives(lambda a: scores[a], known).draw(random_bits(0), [3], 47)
    assert sorted(every[0].tolist()) == [i for i in range(50) if i not in (4, 9, 30)]
    with pytest.raises(ValueError, match="48 different items that are not positives"):
        HardNegatives(lambda a: scores[a], known).draw(random_bits(0), [3], 48)


def test_hard_negatives_among_candidates():
    scores = np.tile(np.arange(100.0), (3, 1))
    among = UniformNegatives(100)
    hard = HardNegatives(lambda a: scores[a], among=among, candidates=10)
    candidates = among.draw(random_bits(7), [0, 1, 2], 10)
    best = [sorted({*row}, reverse=True)[:2] for row in candidates.tolist()]
    assert hard.draw(random_bits(7), [0, 1, 2], 2).tolist() == best
    with pytest.raises(ValueError, match="required together"):
        HardNegatives(lambda a: scores[a], candidates=10)


def test_an_item_drawn_twice_as_a_candidate_is_one_hard_negative():
    scores = np.tile(np.arange(5.0, -1.0, -1.0), (2, 1))
    hard = HardNegatives(lambda a: scores[a], among=UniformNegatives(6), candidates=200)
    assert hard.draw(random_bits(0), [0, 1], 4).tolist() == [[0, 1, 2, 3]] * 2
    assert hard.draw(random_bits(0), [0, 1], 6).tolist() == [[*range(6)]] * 2
    with pytest.raises(ValueError, match=r"7 different .* has 6; ask for fewer, or draw more candidates"):
        hard.draw(random_bits(0), [0, 1], 7)
    known = KnownPositives([0, 1], [0, 3], size=6)
    hard = HardNegatives(lambda a: scores[a], known, UniformNegatives(6, known), candidates=200)
    assert hard.draw(random_bits(0), [0, 1], 3).tolist() == [[1, 2, 3], [0, 1, 2]]


def test_hard_negatives_are_drawn_again_if_too_few_candidates_differ():
    scores = np.zeros((500, 8), int)  # integers, and all equal
    drawn = HardNegatives(lambda a: scores[a], among=UniformNegatives(8), candidates=4).draw(
        random_bits(0), np.arange(500), 3
    )
    assert all(len({*row}) == 3 for row in drawn.tolist())
    scores = np.full((1, 8), np.nan)
    with pytest.raises(ValueError, match="finite scores are required"):
        HardNegatives(lambda a: scores[a]).draw(random_bits(0), [0], 1)


# ---- positives -------------------------------------------------------------------------------------------------------


def test_given_pairs_come_once_each_in_another_order_in_every_epoch():
    pairs = PairPositives(np.arange(100), np.arange(100) + 1000)
    anchors, positives = pairs.draw(random_bits(0, 1))
    assert (positives == anchors + 1000).all() and sorted(anchors) == list(range(100))
    assert (pairs.draw(random_bits(0, 1))[0] == anchors).all()
    assert (pairs.draw(random_bits(0, 2))[0] != anchors).any()
    assert (pairs.draw(random_bits(1, 1))[0] != anchors).any()
    with pytest.raises(ValueError, match="as many anchors as positives"):
        PairPositives([1, 2], [3])


def by_definition(tokens, lengths, radius):
    """Return the pairs of every position in the order of the text, by loops."""
    pairs, start = [], 0
    for length in lengths:
        for t in range(start, start + length):
            near = range(max(start, t - radius[t]), min(start + length, t + radius[t] + 1))
            pairs += [(tokens[t], tokens[other]) for other in near if other != t]
        start += length
    return pairs


@pytest.mark.parametrize("window", [1, 2, 5, 40])
def test_windows_give_the_pairs_of_the_definition(window):
    tokens, lengths = (uniform(random_bits(9), 60) * 20).astype(int), [7, 1, 0, 30, 2, 20]
    sampler = WindowPositives(tokens, lengths, window)
    radius = 1 + (uniform(random_bits(0, 4), 60) * window).astype(int)
    centers, contexts = sampler.draw(random_bits(0, 4))
    assert list(zip(centers.tolist(), contexts.tolist(), strict=True)) == by_definition(
        tokens.tolist(), lengths, radius.tolist()
    )
    windows = sampler.windows(random_bits(0, 4))
    assert windows.shape == (60, 2 * window)
    assert (windows[windows != NO_TOKEN] == contexts).all()


def test_near_words_are_positives_more_often():
    tokens = np.arange(10_000)
    centers, contexts = WindowPositives(tokens, [10_000], window=4).draw(random_bits(0))
    share = np.bincount(np.abs(centers - contexts), minlength=5)[1:] / 20_000
    np.testing.assert_allclose(share, [1, 0.75, 0.5, 0.25], atol=0.02)


def test_windows_of_no_text():
    assert WindowPositives([], [], window=3).windows(random_bits(0)).shape == (0, 6)
    assert [len(ids) for ids in WindowPositives([1], [1], window=3).draw(random_bits(0))] == [0, 0]


def test_mistakes_in_windows():
    with pytest.raises(ValueError, match="window of at least 1 is required; got 0"):
        WindowPositives([1, 2], [2], window=0)
    with pytest.raises(ValueError, match="add up to the 2 tokens"):
        WindowPositives([1, 2], [3], window=1)
    with pytest.raises(ValueError, match="a list of integers is required"):
        WindowPositives([1.0, 2.0], [2], window=1)


def test_frequent_words_are_kept_with_the_probability_of_the_paper():
    counts = np.array([90_000, 9_000, 999, 1, 0])
    sampler = Subsampling(counts, 1e-3)
    share = counts / counts.sum()
    expected = [1 - max(0, 1 - np.sqrt(1e-3 / f)) for f in share[:4]]  # equation 5 gives the probability of discarding
    np.testing.assert_allclose(sampler.probability_N, [*expected, 1])
    tokens = np.repeat(np.arange(4), 20_000)
    kept = sampler.kept(random_bits(0), tokens)
    np.testing.assert_allclose(np.bincount(tokens[kept]) / 20_000, expected, atol=0.02)
    with pytest.raises(ValueError, match="threshold above 0"):
        Subsampling(counts, 0)


# ---- bits ------------------------------------------------------------------------------------------------------------


def test_bits_depend_on_seed_and_position_alone():
    assert random_bits(3, 1, 4).random_raw(3).tolist() == random_bits(3, 1, 4).random_raw(3).tolist()
    streams = [random_bits(*key).random_raw() for key in [(3,), (3, 0), (3, 0, 0), (3, 1), (4, 0)]]
    assert len({*streams}) == 5
    assert sorted(permutation(random_bits(0), 1000).tolist()) == list(range(1000))
