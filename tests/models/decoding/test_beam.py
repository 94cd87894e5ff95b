"""Beam search compared with listing all possible targets, with itself without shortcuts, and with greedy."""

import numpy as np
import pytest

import tensorlib as tl
from models.architectures import transformer
from models.decoding import token_by_token
from models.decoding.beam import Beams, beam_search
from models.decoding.forced import force_decode
from models.decoding.hypothesis import length_penalty
from models.decoding.token_by_token import greedy
from models.text.tokens import BOS, EOS
from tests.models.decoding.test_token_by_token import make, sources
from tests.table_model import TableModel

SOURCES = [[4, EOS], [5, 4, EOS], [EOS], [5, 5, EOS], [4, 4, 5, EOS]]
ALPHAS = (-1.0, 0.0, 0.6, 2.0)


def all_targets(model, source, alpha, longest, min_length=0):
    """Return (score, tokens) of every target that ends within `longest` tokens or is cut there, best first."""
    found = []

    def go_on(tokens, total):
        if len(tokens) == longest or tokens[-1:] == (EOS,):
            found.append((total / ((5 + len(tokens)) / 6) ** alpha, tokens))
            return
        for token, log_prob in enumerate(model.log_probs(source, tokens)):
            if token != EOS or len(tokens) >= min_length:
                go_on((*tokens, token), total + log_prob)

    go_on((), 0.0)
    return sorted(found, reverse=True)


def written(hypothesis):
    return (*hypothesis.tokens, EOS) if hypothesis.ended else hypothesis.tokens


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("min_length", [0, 2])
def test_a_beam_as_wide_as_all_targets_finds_the_best_of_them(alpha, min_length):
    model, longest, n = TableModel(), 4, 20
    found = beam_search(model, SOURCES, 6**4, alpha, n, min_length, longest)
    lengths = set()
    for source, best in zip(SOURCES, found, strict=True):
        expected = all_targets(model, source, alpha, longest, min_length)[:n]
        assert [written(h) for h in best] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([h.score for h in best], [score for score, _ in expected], rtol=1e-12)
        lengths |= {len(tokens) for _, tokens in expected}
    assert len(lengths) > 1  # otherwise the length penalty would have no effect


def test_the_length_penalty_is_that_of_wu_et_al():
    assert length_penalty(1, 0.6) == 1.0 and length_penalty(7, 1.0) == 2.0 and length_penalty(7, -1.0) == 0.5
    assert length_penalty(19, 0.5) == 2.0 and length_penalty(19, 0.0) == 1.0


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_beam_1_is_greedy(variant):
    model, texts = make(variant), sources(20, seed=2)
    for limits in ({}, {"max_length": 5}, {"min_length": 4}, {"min_length": 3, "max_length": 3}):
        found = beam_search(model, texts, beam=1, **limits)
        assert [list(best.tokens) for (best,) in found] == greedy(model, texts, **limits)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_scores_are_those_of_forced_scoring(variant):
    model, texts = make(variant), sources(20, seed=2)
    found = beam_search(model, texts, beam=4, n_best=4, length_penalty=0.9, max_length=7)
    pairs = [(source, h) for source, best in zip(texts, found, strict=True) for h in best]
    assert {h.ended for _, h in pairs} == {True, False}
    forced = force_decode(model, [s for s, _ in pairs], [h.tokens for _, h in pairs], 0.9, [h.ended for _, h in pairs])
    for (_, ours), expected in zip(pairs, forced, strict=True):
        np.testing.assert_allclose(ours.log_probs, expected.log_probs, rtol=0, atol=1e-12)
        assert ours.score == pytest.approx(expected.score, rel=1e-12) and len(ours.log_probs) == len(written(ours))
        assert ours.score == pytest.approx(sum(ours.log_probs) / ((5 + len(written(ours))) / 6) ** 0.9, rel=1e-12)


def test_scores_in_single_precision_are_those_of_forced_scoring_to_a_millionth():
    model, texts = make().astype("float32"), sources(20, seed=2)
    best = [found[0] for found in beam_search(model, texts)]
    forced = force_decode(model, texts, [h.tokens for h in best], 0.6, [h.ended for h in best])
    np.testing.assert_allclose([h.score for h in best], [h.score for h in forced], rtol=1e-5, atol=1e-6)


def test_the_n_best_are_sorted_and_distinct_and_begin_with_the_best():
    model, texts = make(), sources(20, seed=2)
    best = beam_search(model, texts, beam=6, n_best=1)
    for (first,), found in zip(best, beam_search(model, texts, beam=6, n_best=6), strict=True):
        assert len(found) == len({written(h) for h in found}) == 6 and written(found[0]) == written(first)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("n_best", [1, 4])
def test_the_result_for_a_sentence_does_not_depend_on_its_batch(n_best):
    model, texts = make(), sources(20, seed=2)
    together = beam_search(model, texts, n_best=n_best)
    alone = [beam_search(model, [source], n_best=n_best)[0] for source in texts]
    assert [[written(h) for h in found] for found in together] == [[written(h) for h in found] for found in alone]
    for ours, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose([h.score for h in ours], [h.score for h in expected], rtol=0, atol=1e-12)


@pytest.mark.parametrize("ended", [1e-9, 0.7, 2.0])  # at once, ..., never
def test_when_closed_slots_leave_the_batch_changes_no_result(ended, monkeypatch):
    model = TableModel(peaked=2.5)
    usual, rows = beam_search(model, SOURCES, n_best=3), list(model.steps)
    model.steps.clear()
    monkeypatch.setattr(token_by_token, "ENDED", ended)
    assert beam_search(model, SOURCES, n_best=3) == usual
    assert len(model.steps) == len(rows) and model.steps != rows


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n_best", [1, 3])
def test_stopping_early_changes_no_result(alpha, n_best, monkeypatch):
    models = [TableModel(seed=seed, peaked=2.0) for seed in range(20)]
    settings = {"beam": 4, "length_penalty": alpha, "n_best": n_best, "max_length": 9, "min_length": 1}
    early = [beam_search(model, SOURCES, **settings) for model in models]
    rows = sum(sum(model.steps) for model in models)
    for model in models:
        model.steps.clear()
    monkeypatch.setattr(Beams, "_may_win_B", lambda beams: beams.open_BN.any(axis=1))
    assert [beam_search(model, SOURCES, **settings) for model in models] == early
    stopped = rows < sum(sum(model.steps) for model in models)
    assert stopped or alpha == 2.0  # there length outweighs nearly everything, so nothing is decided early


class Scripted(TableModel):
    """A model with given probabilities; the remaining probability goes to word 0."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def logits(self, source, begun):
        given = self.script.get(begun, {EOS: 0.999})
        probs = np.full(self.vocabulary, 1e-12)
        probs[list(given)] = list(given.values())
        probs[0] += 1 - probs.sum()
        return np.log(probs)


def test_it_does_not_stop_on_a_short_target_that_a_long_one_will_beat():
    # The empty target ends at once with log P -0.69, score -0.69; "4" six times and </s> has log P -0.92, score -0.46.
    model = Scripted({(): {EOS: 0.5, 4: 0.45}, **{(4,) * n: {4: 0.98} for n in range(1, 6)}, (4,) * 6: {EOS: 0.98}})
    ((best,),) = beam_search(model, [[4, EOS]], beam=2, length_penalty=1.0)
    assert best.tokens == (4,) * 6 and best.log_prob == pytest.approx(np.log(0.45) + 6 * np.log(0.98))
    assert best.score == pytest.approx(best.log_prob / 2)
    ((best,),) = beam_search(model, [[4, EOS]], beam=2, length_penalty=0.0)
    assert best.tokens == ()


def test_it_stops_when_no_open_target_can_win():
    # Without a penalty, targets that begin with "4", log P -3.0, cannot beat the empty target, -0.06.
    model = Scripted({(): {EOS: 0.94, 4: 0.05}})
    beam_search(model, [[4, EOS]], beam=2, length_penalty=0.0)
    assert len(model.steps) == 1
    model.steps.clear()
    beam_search(model, [[4, EOS]], beam=2, length_penalty=0.0, n_best=2)
    assert len(model.steps) == 2  # both of the two best must have been found


def test_each_sentence_keeps_its_length_limits():
    model = TableModel(peaked=0.1)
    found = beam_search(model, SOURCES, beam=3, n_best=3, min_length=2, max_length=[3, 4, 5, 6, 7])
    for longest, best in zip([3, 4, 5, 6, 7], found, strict=True):
        assert all(len(h.tokens) >= 2 and len(written(h)) <= longest for h in best)
        assert all(h.ended or len(h.tokens) == longest for h in best)
    assert found[3] == beam_search(model, SOURCES[3:4], beam=3, n_best=3, min_length=2, max_length=6)[0]
    ((nothing,),) = beam_search(model, SOURCES[:1], max_length=0)
    assert nothing.tokens == () and not nothing.ended and nothing.score == 0
    assert beam_search(model, [], beam=3) == []


def test_beam_search_agrees_on_every_backend(backend):
    model = make()
    expected = beam_search(model, sources(), n_best=2, min_length=1)
    found = beam_search(model.to(backend), sources(), n_best=2, min_length=1)
    assert [[written(h) for h in best] for best in found] == [[written(h) for h in best] for best in expected]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"beam": 2, "n_best": 3}, "n_best 3 and beam 2"),
        ({"beam": 0}, "beam 0"),
        ({"length_penalty": np.nan}, "nan"),
        ({"min_length": 4, "max_length": 3}, "got min_length 4 and max_length 3"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        beam_search(TableModel(), SOURCES, **settings)


# ---- forced scoring ----


def test_forced_scores_are_the_log_probabilities_of_the_whole_target_read_at_once():
    model = make().eval()
    texts, targets = [[4, 5, EOS], [6, EOS], [7, 8, 9, EOS]], [[5, 4], [], [4, 4, 4, 4]]
    forced = force_decode(model, texts, targets, length_penalty=1.0, ended=[True, True, False])
    for source, target, end, found in zip(texts, targets, (True, True, False), forced, strict=True):
        log_probs = tl.log_softmax(model(np.array([source]), np.array([[2, *target]]))).numpy()[0]
        words = [*target, EOS] if end else target
        expected = [log_probs[t, word] for t, word in enumerate(words)]
        np.testing.assert_allclose(found.log_probs, expected, rtol=0, atol=1e-12)
        assert found.score == pytest.approx(sum(expected) * 6 / (5 + len(words)))
        assert list(found.tokens) == target and found.ended is end
    assert force_decode(model, [], []) == []


# ---- the state that is reordered ----


def test_what_need_not_be_copied_is_not(monkeypatch):
    monkeypatch.setattr(transformer, "can_prepare", lambda *arguments: False)
    model = make().eval()
    with tl.no_grad():
        state = token_by_token.initial_state(model, [[4, EOS], [5, EOS]]).select([0, 0, 1, 1])
        for token in (BOS, 4):  # the first has no room to grow yet
            _, state = model.decode_step([token] * 4, state)
        assert state.select([0, 1, 2, 3]) is state and state.select(np.ones(4, bool)) is state
        swapped = state.select([1, 1, 3, 2])
        assert swapped.cross is state.cross and swapped.visible is state.visible
        np.testing.assert_array_equal(swapped.own[0].keys.numpy(), state.own[0].keys.numpy()[[1, 1, 3, 2]])
        _, after = model.decode_step([4, 5, 6, 7], swapped)
        assert after.own[0].buffer is swapped.own[0].buffer  # free positions are kept
        moved = state.select([2, 0, 1, 3])
        assert moved.cross is not state.cross and moved.source_B.tolist() == [1, 0, 0, 1]
