"""Sampling: which tokens may be drawn, how often each is drawn, and that only the seed matters."""

import numpy as np
import pytest

import tensorlib as tl
from models.decoding import token_by_token
from models.decoding.forced import force_decode
from models.decoding.token_by_token import candidates, greedy, sample
from models.text.tokens import EOS
from tests.models.decoding.test_token_by_token import make, sources
from tests.table_model import TableModel

PROBS = np.array([[0.05, 0.4, 0.1, 0.05, 0.3, 0.1]])
LOGITS = tl.Tensor(np.log(PROBS) + 7.0)  # logits are the logarithms up to a constant


def spread(logits, temperature=1.0, top_k=0, top_p=1.0, **options):
    """Return the probability with which each token is drawn, (B, V)."""
    ids_BC, probs_BC = candidates(logits, temperature, top_k, top_p, **options)
    if ids_BC is None:
        return probs_BC
    probs_BV = np.zeros(logits.shape)
    np.put_along_axis(probs_BV, ids_BC, probs_BC, axis=1)
    return probs_BV


BY_HAND = [
    ({}, PROBS[0]),
    ({"temperature": 0.5}, PROBS[0] ** 2 / (PROBS[0] ** 2).sum()),
    ({"temperature": 2.0}, PROBS[0] ** 0.5 / (PROBS[0] ** 0.5).sum()),
    ({"top_k": 1}, [0, 1, 0, 0, 0, 0]),
    ({"top_k": 2}, [0, 4 / 7, 0, 0, 3 / 7, 0]),
    ({"top_k": 3}, [0, 0.5, 0.125, 0, 0.375, 0]),  # of 2 and 5, equally likely, the first
    ({"top_k": 6}, PROBS[0]),
    ({"top_k": 99}, PROBS[0]),
    ({"top_p": 0.01}, [0, 1, 0, 0, 0, 0]),
    ({"top_p": 0.39}, [0, 1, 0, 0, 0, 0]),
    ({"top_p": 0.41}, [0, 4 / 7, 0, 0, 3 / 7, 0]),
    ({"top_p": 0.75}, [0, 0.5, 0.125, 0, 0.375, 0]),
    ({"top_p": 0.85}, [0, 4 / 9, 1 / 9, 0, 3 / 9, 1 / 9]),
    ({"top_k": 2, "top_p": 0.5}, [0, 1, 0, 0, 0, 0]),  # of the two, the first has 4/7
    ({"top_k": 2, "top_p": 0.6}, [0, 4 / 7, 0, 0, 3 / 7, 0]),
    ({"temperature": 0.5, "top_p": 0.55}, [0, 1, 0, 0, 0, 0]),  # 0.16 of 0.275 after temperature
    ({"may_end": False}, np.array([0.05, 0.4, 0.1, 0, 0.3, 0.1]) / 0.95),
    ({"may_end": False, "top_k": 6, "top_p": 0.999}, np.array([0.05, 0.4, 0.1, 0, 0.3, 0.1]) / 0.95),
]


@pytest.mark.parametrize("settings, expected", BY_HAND, ids=str)
def test_probabilities_are_those_computed_by_hand(settings, expected):
    np.testing.assert_allclose(spread(LOGITS, **settings)[0], expected, rtol=1e-12, atol=1e-15)


def test_a_flat_distribution_gets_the_whole_nucleus(monkeypatch):
    rng = np.random.default_rng(0)
    logits = tl.Tensor(np.stack([5 * rng.normal(size=1000), 0.01 * rng.normal(size=1000)]))
    usual = spread(logits, top_p=0.9)
    assert 5 < (usual[0] > 0).sum() < token_by_token.NUCLEUS and 850 < (usual[1] > 0).sum() < 950
    monkeypatch.setattr(token_by_token, "NUCLEUS", 1000)
    np.testing.assert_allclose(spread(logits, top_p=0.9), usual, rtol=1e-12)


def test_targets_are_drawn_as_often_as_they_are_likely():
    model, many, source = TableModel(seed=3), 4000, (4, EOS)
    drawn = [h.tokens if h.ended else h.tokens[:2] for h in sample(model, [list(source)] * many, max_length=2)]
    first = np.exp(model.log_probs(source, ()))
    assert np.mean([ids == () for ids in drawn]) == pytest.approx(first[EOS], abs=0.03)  # 4 standard deviations
    for token in set(range(model.vocabulary)) - {EOS}:
        second = np.exp(model.log_probs(source, (token,)))
        ending = np.mean([ids == (token,) for ids in drawn])
        assert ending == pytest.approx(first[token] * second[EOS], abs=0.03)
        for next_token in set(range(model.vocabulary)) - {EOS}:
            going_on = np.mean([ids == (token, next_token) for ids in drawn])
            assert going_on == pytest.approx(first[token] * second[next_token], abs=0.03)


def test_only_the_likeliest_are_drawn():
    model, source = TableModel(seed=3), (4, EOS)
    first = {h.tokens[0] for h in sample(model, [list(source)] * 200, top_k=2, max_length=1, min_length=1)}
    assert first == set([i for i in np.argsort(-model.log_probs(source, ())) if i != EOS][:2])


@pytest.mark.parametrize("settings", [{"temperature": 1e-7}, {"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_at_its_ends_sampling_is_greedy(settings):
    model, texts = make(), sources(20, seed=2)
    for lengths in ({}, {"min_length": 4}, {"max_length": 3}):
        drawn = sample(model, texts, **settings, **lengths)
        assert [list(h.tokens) for h in drawn] == greedy(model, texts, **lengths)


def test_a_seed_gives_the_same_text_in_any_batch():
    model, texts = make(), sources(20, seed=2)
    draws = [(7, i) for i in range(len(texts))]
    together = [h.tokens for h in sample(model, texts, draws=draws)]
    assert len(set(together)) > 10
    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = sample(model, [texts[i] for i in order], draws=[draws[i] for i in order])
    assert [h.tokens for h in shuffled] == [together[i] for i in order]
    assert [sample(model, [s], draws=[d])[0].tokens for s, d in zip(texts, draws, strict=True)] == together
    tl.seed(7)
    assert [h.tokens for h in sample(model, texts)] == together  # the first draws of the default generator
    assert [h.tokens for h in sample(model, texts)] != together  # the next ones


def test_probabilities_are_the_models_own():
    model, texts = make(), sources(20, seed=2)
    drawn = sample(model, texts, temperature=1.5, top_k=8, max_length=6, length_penalty=0.6)
    assert {h.ended for h in drawn} == {True, False}
    forced = force_decode(model, texts, [h.tokens for h in drawn], 0.6, [h.ended for h in drawn])
    for ours, expected in zip(drawn, forced, strict=True):
        np.testing.assert_allclose(ours.log_probs, expected.log_probs, rtol=0, atol=1e-12)
        assert ours.score == pytest.approx(expected.score, rel=1e-12)


def test_sampling_agrees_on_every_backend(backend):
    model, draws = make(), [(0, i) for i in range(12)]
    settings = {"top_k": 5, "top_p": 0.9, "min_length": 1, "draws": draws}
    expected = [h.tokens for h in sample(model, sources(), **settings)]
    assert [h.tokens for h in sample(model.to(backend), sources(), **settings)] == expected


@pytest.mark.parametrize(
    "bad", [{"temperature": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 2}]
)
def test_impossible_settings_are_refused(bad):
    (value,) = bad.values()
    with pytest.raises(ValueError, match=f"{value}"):
        sample(TableModel(), [[4, EOS]], **bad)


def test_lengths_are_kept_by_greedy_and_by_sampling():
    model, texts = TableModel(peaked=0.1), [[4, EOS]] * 3
    for tokens in (greedy(model, texts, [2, 4, 9], 2), [h.tokens for h in sample(model, texts, 1, 0, 1, 2, [2, 4, 9])]):
        assert all(2 <= len(ids) <= most for ids, most in zip(tokens, [2, 4, 9], strict=True))
        assert all(EOS not in ids for ids in tokens)
