"""Decoding by recorded steps on a device finds what decoding on the host finds."""

import copy
import pickle

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.decoding import beam as beam_module
from models.decoding import token_by_token
from models.decoding.beam import beam_search
from models.decoding.checks import NonFiniteLogits
from models.decoding.token_by_token import greedy
from models.text.tokens import EOS
from tests.conftest import backend_named

VOCABULARY = 12
SOURCES = [[5, 6, 7, EOS], [8, EOS], [9, 10, 11, 4, 5, EOS], [4, 4, EOS], [7, 9, 11, EOS]]
VARIANTS = [
    {},
    {"positions": "rotary", "norm": "pre"},
    {"positions": "learned", "tie_embeddings": True, "max_length": 30},
    {"positions": "none", "layers": 1},
]


@pytest.fixture
def device():
    """Return a GPU, or the emulated one."""
    return backend_named("cupy")


def make(seed=0, **changes):
    """Return a model whose targets differ in length: </s> is likely now and then."""
    settings = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 16, "dropout": 0.1} | changes
    model = Transformer(TransformerConfig(VOCABULARY, VOCABULARY, **settings), tl.Generator(seed)).astype("float64")
    rng = np.random.default_rng(seed)
    model.load_state_dict({n: a + 0.5 * rng.standard_normal(a.shape) for n, a in model.state_dict().items()})
    return model


def on(device, model):
    moved = copy.deepcopy(model)
    moved.to(device)
    return moved


@pytest.mark.parametrize("changes", VARIANTS)
def test_greedy_finds_the_same_targets(device, changes):
    model = make(**changes)
    other = on(device, model)
    for given in ({}, {"min_length": 5, "max_length": 9}, {"max_length": [3, 0, 9, 1, 5]}):
        expected = greedy(model, SOURCES, **given)
        assert greedy(other, SOURCES, **given) == expected
        assert greedy(other, SOURCES[1:3], max_length=7) == greedy(model, SOURCES[1:3], max_length=7)
    assert len({len(target) for target in expected}) > 2


@pytest.mark.parametrize("changes", VARIANTS[:2])
@pytest.mark.parametrize(("beam", "n_best", "alpha", "least"), [(1, 1, 0.0, 0), (4, 2, 0.6, 0), (3, 3, -1.0, 2)])
def test_beam_search_finds_the_same_hypotheses(device, changes, beam, n_best, alpha, least):
    model = make(**changes)
    other = on(device, model)
    for limit in (None, [9, 0, 12, 2, 8]):
        if limit and least:
            limit = [max(one, least) for one in limit]
        given = {"beam": beam, "n_best": n_best, "length_penalty": alpha, "min_length": least, "max_length": limit}
        expected, found = beam_search(model, SOURCES, **given), beam_search(other, SOURCES, **given)
        for ours, theirs in zip(found, expected, strict=True):
            assert [(h.tokens, h.ended) for h in ours] == [(h.tokens, h.ended) for h in theirs]
            for one, wanted in zip(ours, theirs, strict=True):
                assert one.log_probs == pytest.approx(wanted.log_probs, rel=1e-9, abs=1e-12)
                assert one.score == pytest.approx(wanted.score, rel=1e-9)


def test_steps_are_recorded_once_and_kept_for_the_next_batch(device):
    model = on(device, make())
    greedy(model, SOURCES)
    (decoder,) = model._fixed_decoders._decoders.values()
    search = decoder.searches["greedy"]
    greedy(model, SOURCES[:3])  # of the same rounded shape
    assert list(model._fixed_decoders._decoders.values()) == [decoder] and decoder.searches["greedy"] is search
    calls = []
    real = decoder.next_logits
    decoder.next_logits = lambda *a: calls.append(1) or real(*a)
    greedy(model, SOURCES)
    assert not calls


def test_weights_that_were_replaced_are_noticed(device):
    model, other = make(), on(device, make())
    greedy(other, SOURCES)
    state = make(seed=3).state_dict()
    for one in (model, other):
        one.load_state_dict(state)
    assert greedy(other, SOURCES) == greedy(model, SOURCES)


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_logits_that_are_not_finite_name_the_source(device, search):
    model = on(device, make())
    search(model, SOURCES)
    messages = []
    for home in ("numpy", device):
        other = on(home, make())
        other.load_state_dict({**other.state_dict(), "source_embedding.weight": _spoilt(other)})
        with pytest.raises(NonFiniteLogits, match="those for source 2 are NaN or infinite") as error:
            search(other, SOURCES)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert search(model, SOURCES)  # nothing is left over


def _spoilt(model):
    """Return source embeddings whose row 10, of a word in source 2 alone, is NaN."""
    weight = model.state_dict()["source_embedding.weight"].copy()
    weight[10] = np.nan
    return weight


def test_a_model_with_hooks_is_decoded_step_by_step(device):
    model = on(device, make())
    seen = []
    model.decoder.layers[0].register_forward_hook(lambda *given: seen.append(1))
    with model.evaluating(), tl.no_grad():
        assert model.fixed_decoder(2, 1, 9, 4) is None


def test_copies_and_pickles_of_a_model_have_no_recordings(device):
    model = on(device, make())
    expected = greedy(model, SOURCES)
    other = copy.deepcopy(model)
    assert other._fixed_decoders is not model._fixed_decoders and not other._fixed_decoders._decoders
    assert greedy(other, SOURCES) == expected
    assert pickle.loads(pickle.dumps(model._fixed_decoders))._decoders == {}


def test_on_the_host_no_decoder_is_fixed():
    model = make()
    with model.evaluating(), tl.no_grad():
        assert model.fixed_decoder(2, 1, 9, 4) is None
    assert token_by_token.greedy is greedy and beam_module.beam_search is beam_search
