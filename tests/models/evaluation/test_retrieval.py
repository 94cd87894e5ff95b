"""Retrieval: ranks against a plain sort, equal texts, ties, distractors, blocks."""

import numpy as np
import pytest

import models.evaluation.retrieval as module
from models.evaluation.retrieval import Retrieval, ranks_of, retrieval


class Table:
    """An encoder that knows the vector of each text."""

    def __init__(self, **vectors):
        self.vectors = vectors

    def embed(self, texts, side):
        return np.array([self.vectors[f"{side[0]}_{text}"] for text in texts], dtype=np.float64)


def test_ranks_are_those_of_a_sort(monkeypatch):
    rng = np.random.default_rng(0)
    queries, candidates = rng.standard_normal((23, 4)), rng.standard_normal((31, 4))
    expected = [1 + np.argsort(-(candidates @ q)).tolist().index(i) for i, q in enumerate(queries)]
    assert ranks_of(queries, candidates, np.arange(31)).tolist() == expected
    monkeypatch.setattr(module, "BLOCK", 70)  # two rows at a time
    assert ranks_of(queries, candidates, np.arange(31)).tolist() == expected


def test_an_encoder_that_maps_all_to_one_vector_finds_nothing():
    assert ranks_of(np.ones((3, 2)), np.ones((5, 2)), np.arange(5)).tolist() == [5, 5, 5]


def test_measures_directions_and_distractors():
    encoder = Table(s_a=[1, 0], s_b=[0, 1], t_A=[0.5, 0.6], t_B=[0.4, 0.9], t_C=[0.9, 0.1])
    expected = Retrieval(accuracy_1=1.0, accuracy_10=1.0, reciprocal_rank=1.0, candidates=2)
    assert retrieval(encoder, ["a", "b"], ["A", "B"]) == expected
    expected = Retrieval(accuracy_1=0.5, accuracy_10=1.0, reciprocal_rank=0.75, candidates=3)
    assert retrieval(encoder, ["a", "b"], ["A", "B"], ["C"]) == expected
    assert retrieval(encoder, ["A", "B"], ["a", "b"], side="target").accuracy_1 == 0.5


def test_copies_of_the_right_text_do_not_count():
    encoder = Table(s_a=[1, 0], s_b=[1, 0.1], t_A=[1, 0], t_B=[0.9, 0])
    assert retrieval(encoder, ["a", "a"], ["A", "A"], ["A", "B"]).accuracy_1 == 1.0
    assert retrieval(encoder, ["a", "b"], ["A", "B"], ["A", "B"]).reciprocal_rank == pytest.approx((1 + 1 / 3) / 2)


def test_what_can_not_be_measured_is_refused():
    with pytest.raises(
        ValueError, match="one target for each source is required, and at least one; got 1 sources and 2"
    ):
        retrieval(Table(), ["a"], ["A", "B"])
    with pytest.raises(ValueError, match="got 0 sources and 0 targets"):
        retrieval(Table(), [], [])
    with pytest.raises(ValueError, match="finite vectors are required"):
        retrieval(Table(s_a=[np.nan, 0], t_A=[1, 0]), ["a"], ["A"])


@pytest.mark.parametrize("width", [33, 100, 257])
def test_of_equal_vectors_the_right_one_is_the_last(width):
    """BLAS rounds the scores of equal columns differently."""
    vector = np.random.default_rng(0).normal(size=width).astype("float32")
    vector /= np.linalg.norm(vector)
    ranks = ranks_of(np.tile(vector, (130, 1)), np.tile(vector, (1003, 1)), np.arange(1003))
    assert (ranks == 1003).all()
