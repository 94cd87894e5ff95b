"""Batches: the shift of teacher forcing, padding, and an order that depends on seed and epoch alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.text.batching import (
    Example,
    batches,
    encode_pairs,
    epoch_batches,
    group_by_length,
    lengths,
    make_batch,
    teacher_forcing,
)
from models.text.subwords import Tokenizer
from models.text.tokens import BOS, EOS, PAD

WE, HAVE, A, CAT = 10, 11, 12, 13


def caption_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Return lengths like those of captions: about 15 words, similar in both languages."""
    rng = np.random.default_rng(seed)
    source = np.maximum(2, rng.gamma(12, 1.25, count))
    target = np.maximum(2, source + rng.normal(0, 2.5, count))
    return np.stack([source, target], axis=1).astype(np.int64)


def padding_efficiency(lengths: Any, groups: Any) -> float:
    """Return the fraction of all positions, on both sides, that hold tokens, not padding; 1 if there are none."""
    return lengths.sum() / sum(len(group) * lengths[group].max(axis=0).sum() for group in groups) if groups else 1.0


def test_teacher_forcing_shifts_by_one() -> None:
    assert teacher_forcing([WE, HAVE, A, CAT]) == ([BOS, WE, HAVE, A, CAT], [WE, HAVE, A, CAT, EOS])
    assert teacher_forcing([]) == ([BOS], [EOS])


def test_a_batch_by_hand() -> None:
    batch = make_batch([([20, 21, EOS], [WE, HAVE, A, CAT]), ([22, EOS], [A, CAT])])
    assert batch.source_BS.tolist() == [[20, 21, EOS], [22, EOS, PAD]]
    assert batch.target_in_BT.tolist() == [[BOS, WE, HAVE, A, CAT], [BOS, A, CAT, PAD, PAD]]
    assert batch.target_out_BT.tolist() == [[WE, HAVE, A, CAT, EOS], [A, CAT, EOS, PAD, PAD]]
    assert batch.source_lengths_B.tolist() == [3, 2]
    assert batch.target_lengths_B.tolist() == [5, 3]
    assert batch.tokens == 8
    for ids in (batch.source_BS, batch.target_in_BT, batch.target_out_BT):
        assert ids.dtype == np.int64


ids = st.lists(st.integers(4, 99), max_size=9)


@given(st.lists(st.tuples(ids.map(lambda source: [*source, EOS]), ids), min_size=1, max_size=9))
def test_a_batch_holds_its_examples_and_padding_only(examples: list[Example]) -> None:
    batch = make_batch(examples)
    for row, (source, target) in enumerate(examples):
        assert batch.source_BS[row][batch.source_BS[row] != PAD].tolist() == source
        words = batch.target_out_BT[row][batch.target_out_BT[row] != PAD].tolist()
        assert words == [*target, EOS]
        # The input at position t + 1 is the expected output at position t.
        assert batch.target_in_BT[row, 1 : len(words)].tolist() == words[:-1]
    assert batch.tokens == np.count_nonzero(batch.target_out_BT != PAD)
    assert batch.source_BS.shape[1] == lengths(examples)[:, 0].max()
    assert batch.target_in_BT.shape[1] == batch.target_out_BT.shape[1] == lengths(examples)[:, 1].max()


def test_no_examples_make_no_batch() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        make_batch([])
    assert lengths([]).shape == (0, 2)


def test_encoded_pairs_keep_their_order_and_their_text() -> None:
    pairs = [("a b", "a"), ("a", "a b"), ("a a b", "a"), ("a", "a a b")]
    tokenizer = Tokenizer.train(pairs * 9)
    everything = encode_pairs(tokenizer, pairs)
    assert [len(source) for source, _ in everything] == [3, 2, 4, 2]  # words and EOS
    assert lengths(everything).tolist() == [[3, 2], [2, 3], [4, 2], [2, 4]]
    assert [tokenizer.decode_target(target) for _, target in everything] == [target for _, target in pairs]


any_lengths = hnp.arrays(np.int64, st.tuples(st.integers(0, 60), st.just(2)), elements=st.integers(1, 40))
limits = st.fixed_dictionaries({"tokens_per_batch": st.integers(1, 300)}) | st.fixed_dictionaries(
    {"sentences_per_batch": st.integers(1, 70)}
)


@given(any_lengths, limits, st.integers(0, 2**70), st.integers(0, 2**40), st.sampled_from([0.0, 1.0, 5.0]))
def test_every_example_comes_once_an_epoch_within_the_limit(
    sizes: np.ndarray, limit: Any, seed: int, epoch: int, noise: float
) -> None:
    groups = epoch_batches(sizes, seed=seed, epoch=epoch, noise=noise, **limit)
    assert sorted(np.concatenate([*groups, np.array([], int)]).tolist()) == list(range(len(sizes)))
    for group in groups:
        assert len(group) > 0
        if "sentences_per_batch" in limit:
            assert len(group) <= limit["sentences_per_batch"]
        else:
            positions = len(group) * sizes[group].max()
            assert positions <= limit["tokens_per_batch"] or len(group) == 1
    if "sentences_per_batch" in limit:
        assert len(groups) == -(-len(sizes) // limit["sentences_per_batch"])
    assert 0 < padding_efficiency(sizes, groups) <= 1


def test_batches_of_tokens_are_filled() -> None:
    sizes = [[1, 30]] + [[2, 1]] * 20  # one row of 30 positions, and twenty of 2
    groups = epoch_batches(sizes, seed=0, epoch=0, tokens_per_batch=30, noise=0.0)
    assert sorted(len(group) for group in groups) == [1, 5, 15]


def test_the_order_is_that_of_its_seed_and_epoch_in_every_process_and_version() -> None:
    sizes = [[2, 3], [9, 9], [3, 2], [8, 9], [2, 2], [9, 8]]
    groups = epoch_batches(sizes, seed=1, epoch=2, sentences_per_batch=2)
    again = epoch_batches(sizes, seed=1, epoch=2, sentences_per_batch=2)
    assert [group.tolist() for group in groups] == [group.tolist() for group in again]
    # Fixed numbers, because a run resumed after an upgrade must get the same batches.
    assert [group.tolist() for group in groups] == [[3, 1], [4, 5], [0, 2]]


def orders(sizes: np.ndarray, seed: int, epoch: int) -> list[list[int]]:
    return [g.tolist() for g in epoch_batches(sizes, seed=seed, epoch=epoch, sentences_per_batch=32)]


def test_each_epoch_and_seed_has_different_batches() -> None:
    sizes = caption_lengths(2000)
    first = orders(sizes, 1, 0)
    # 2**32 splits into the words (0, 1): a key of concatenated seed and epoch would repeat an epoch.
    others = [orders(sizes, 1, 1), orders(sizes, 0, 1), orders(sizes, 2**32, 0), orders(sizes, 0, 2**32)]
    everything = [first, *others]
    for i, one in enumerate(everything):
        for other in everything[:i]:
            assert one != other
    # Not just the same batches in another order: few sentences that share a batch share one again.
    place = {example: number for number, group in enumerate(others[0]) for example in group}
    meetings = [place[a] == place[b] for group in first for a in group for b in group if a < b]
    assert np.mean(meetings) < 0.25


def test_short_and_long_batches_come_mixed() -> None:
    sizes = caption_lengths(4000)
    groups = epoch_batches(sizes, seed=0, epoch=0, sentences_per_batch=32)
    means = [sizes[group].mean() for group in groups]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("limit", [{"sentences_per_batch": 128}, {"tokens_per_batch": 2048}])
def test_little_is_padding(limit: Any) -> None:
    sizes = caption_lengths(29_000)
    groups = epoch_batches(sizes, seed=0, epoch=0, **limit)
    assert padding_efficiency(sizes, groups) > 0.88
    assert padding_efficiency(sizes, epoch_batches(sizes, seed=0, epoch=0, noise=0.0, **limit)) > 0.95
    at_random = np.array_split(np.random.default_rng(0).permutation(len(sizes)), len(groups))
    assert padding_efficiency(sizes, at_random) < 0.6


def test_batches_follow_the_groups_and_resume_anywhere() -> None:
    examples = [([*range(4, 4 + n), EOS], list(range(4, 4 + n))) for n in range(1, 30)]
    groups = epoch_batches(lengths(examples), seed=3, epoch=1, tokens_per_batch=64)
    whole = list(batches(examples, groups))
    assert len(whole) == len(groups) > 3
    for batch, group in zip(whole, groups, strict=True):
        assert batch.source_lengths_B.tolist() == lengths(examples)[group, 0].tolist()
    for batch, resumed in zip(whole[2:], batches(examples, groups[2:]), strict=True):
        assert np.array_equal(batch.target_out_BT, resumed.target_out_BT)


@pytest.mark.parametrize(
    ("sizes", "limit", "message"),
    [
        ([[1, 1]], {}, "got None and None"),
        ([[1, 1]], {"tokens_per_batch": 8, "sentences_per_batch": 2}, "got 8 and 2"),
        ([[1, 1]], {"tokens_per_batch": 0}, "got 0 and None"),
        ([1, 2, 3], {"tokens_per_batch": 8}, r"shape \(3,\)"),
    ],
)
def test_errors_for_wrong_arguments_name_their_values(sizes: Any, limit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epoch_batches(sizes, seed=0, epoch=0, **limit)


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(0, 100))
def test_groups_are_of_similar_length_longest_first_and_as_large_as_fits(sizes: list[int], positions: int) -> None:
    groups = group_by_length(sizes, positions)
    order = [i for group in groups for i in group]
    assert order == sorted(range(len(sizes)), key=lambda i: -sizes[i])
    for number, group in enumerate(groups, start=1):
        assert len(group) == 1 or len(group) * sizes[group[0]] <= positions
        assert number == len(groups) or (len(group) + 1) * sizes[group[0]] > positions
