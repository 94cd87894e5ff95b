"""The measured size of a parallel text."""

import pytest

from models.text.size import measure


def test_it_counts_pairs_and_characters():
    size = measure([("abcd abc", "ab"), ("dddd", "b" * 16)])
    assert (size.pairs, size.characters) == (2, (5, 2))


@pytest.mark.parametrize(
    "source, target, same",
    [
        ("Ein Mädchen läuft", "A girl is running in the field", True),
        ("猫在睡觉 OK", "The cat is asleep, OK", False),
        ("Кошка спит", "The cat is asleep", False),
        ("123 ...", "123", True),  # without letters there is nothing to tell the languages apart
    ],
)
def test_it_finds_out_whether_both_languages_use_the_same_letters(source, target, same):
    assert measure([(source, target)]).same_letters is same
    assert measure([(target, source)]).same_letters is same
