"""The words of plain text, and the vocabulary that they form."""

import doctest

import numpy as np
import pytest

import models.text.words
from models.text.words import LONGEST, Vocabulary, words_of


def test_the_examples_run():
    results = doctest.testmod(models.text.words)
    assert results.attempted > 0 and results.failed == 0


@pytest.mark.parametrize(
    "line, words",
    [
        ("", []),
        (" ' '' -- ", []),
        ("Don’t, don't", ["don't", "don't"]),
        ("rock'n'roll 'quoted'", ["rock'n'roll", "quoted"]),
        ("e\u0301te\u0301 \u00e9t\u00e9", ["été", "été"]),
        ("हिन्दी शब्द", ["हिन्दी", "शब्द"]),
        ("a\u2028b\tc\u00a0d", ["a", "b", "c", "d"]),
        ("x²+1=2", ["x²", "1", "2"]),
        ("snake_case@site.org", ["snake", "case", "site", "org"]),
        ("ÄRGER", ["ärger"]),
    ],
)
def test_words_are_runs_of_letters_marks_and_digits(line, words):
    assert words_of(line) == words


def test_case_can_be_kept():
    assert words_of("The US and us", lower=False) == ["The", "US", "and", "us"]


def test_rare_words_are_left_out_before_distances_count():
    text = [["a", "rare", "b"], ["b", "a"], ["other"]]
    vocabulary = Vocabulary.of(text, min_count=2)
    assert vocabulary.words == ["a", "b"] and vocabulary.counts_V.tolist() == [2, 2]
    ids, lengths = vocabulary.encode(text)
    assert ids.tolist() == [0, 1, 1, 0] and lengths.tolist() == [2, 2]


def test_a_text_on_one_line_is_cut():
    ids, lengths = Vocabulary(["a"], [1]).encode([["a"] * (2 * LONGEST + 5)])
    assert lengths.tolist() == [LONGEST, LONGEST, 5] and len(ids) == 2 * LONGEST + 5
    ids, lengths = Vocabulary(["a"], [1]).encode([])
    assert (ids.dtype, ids.size, lengths.size) == (np.dtype(np.int32), 0, 0)
