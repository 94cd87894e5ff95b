"""Text as one stream of ids: it comes back, and windows cover it."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
import models.text.stream as stream
from models.text.stream import decode_text, encode_lines, encode_text, scored_windows, window_batch, windows
from models.text.subwords import Tokenizer
from models.text.tokens import BOS, EOS, PAD, UNK

SUBWORDS = {
    kind: Tokenizer.train([("in the beginning", "was the word")] * 3, vocabulary_size=300, model_type=kind).target
    for kind in ("bpe", "unigram")
}
LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12)
STRANGE = st.sampled_from(
    ["", " ", "  the", "the ", "\t", "\u2581", "\x1b1", "</s>", "<0x0A>", "\r", "猫", "\u2028", "\0"]
)


@pytest.mark.parametrize("kind", SUBWORDS)
@given(lines=st.lists(LINES | STRANGE, max_size=6))
def test_every_text_comes_back_with_its_spaces_and_line_ends(kind, lines):
    subwords, text = SUBWORDS[kind], "\n".join(lines)
    ids = encode_text(subwords, text)
    assert decode_text(subwords, ids) == text and not {PAD, UNK, BOS, EOS} & set(ids)
    assert encode_lines(subwords, lines).tolist() == ids + [subwords.line_end] * bool(lines)
    assert ids.count(subwords.line_end) == text.count("\n")


def test_a_text_ends_at_the_end_of_a_sentence_if_the_model_writes_one():
    subwords = SUBWORDS["bpe"]
    ids = encode_text(subwords, "the\nword")
    assert decode_text(subwords, [BOS, *ids, EOS, *ids]) == "the\nword"


def test_a_word_is_the_same_at_the_beginning_of_a_line():
    subwords = SUBWORDS["bpe"]
    (word,) = encode_text(subwords, "the")
    assert encode_text(subwords, "the\nthe the") == [word, subwords.line_end, word, word]


@given(count=st.integers(0, 40), longest=st.integers(1, 50), offset=st.integers(0, 49))
def test_each_id_is_in_exactly_one_window(count, longest, offset):
    spans = windows(count, longest, offset % longest)
    assert [i for a, b in spans for i in range(a, b)] == list(range(count))
    assert all(0 < b - a <= longest for a, b in spans)
    assert all(b - a == longest for a, b in spans[1:-1])


def test_another_offset_cuts_elsewhere():
    assert windows(10, 4).tolist() == [[0, 4], [4, 8], [8, 10]]
    assert windows(10, 4, 1).tolist() == [[0, 1], [1, 5], [5, 9], [9, 10]]


@given(count=st.integers(0, 40), longest=st.integers(2, 50))
def test_each_id_is_scored_once_after_at_least_half_a_context(count, longest):
    spans = list(scored_windows(count, longest))
    assert [i for _, first, stop in spans for i in range(first, stop)] == list(range(count))
    for start, first, stop in spans:
        assert 0 <= start <= first < stop <= count and stop - start <= longest
        assert start == 0 or first - start >= longest // 2


def test_a_batch_of_windows_predicts_each_token_from_those_before_it():
    batch = window_batch([np.array([5, 6, 7, 8]), np.array([9, 4])], read=[2, 0])
    assert batch.source_BS.shape == (2, 0)
    assert batch.target_in_BT.tolist() == [[BOS, 5, 6, 7], [BOS, 9, 4, PAD]]
    assert batch.target_out_BT.tolist() == [[PAD, PAD, 7, 8], [9, 4, PAD, PAD]]
    assert batch.tokens == 4


def test_the_examples_run():
    assert doctest.testmod(stream, extraglobs={"np": np, "models": models}).failed == 0
