"""Greedy decoding against decoding written out: the whole target again at each step, a sentence at a time."""

from functools import cache

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.decoding import greedy
from models.text import BOS, EOS, PAD
from nn import optim

VOCABULARY = 11
VARIANTS = ({}, {"norm": "pre", "positions": "learned"}, {"tie_embeddings": True})


def fresh(variant):
    options = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32, "dropout": 0.1} | VARIANTS[variant]
    return Transformer(TransformerConfig(VOCABULARY, VOCABULARY, **options), tl.Generator(variant))


def make(variant=0):
    """Return a model that has begun to learn to write backwards: what it says differs, and where it ends."""
    model = fresh(variant).astype("float64")
    model.load_state_dict(learned(variant))
    return model


@cache
def learned(variant):
    tl.seed(variant)
    model, batch = fresh(variant), sources(64, seed=99)
    source, target, wanted = (np.full((64, 8), PAD) for _ in range(3))
    for i, ids in enumerate(batch):
        backwards = ids[-2::-1]
        source[i, : len(ids)] = ids
        target[i, : len(ids)] = [BOS, *backwards]
        wanted[i, : len(ids)] = [*backwards, EOS]
    optimizer = optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        tl.cross_entropy(model(source, target), wanted, ignore_index=PAD).backward()
        optimizer.step()
    return model.state_dict()


def sources(count=12, seed=1):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(4, VOCABULARY, rng.integers(0, 7)).tolist(), EOS] for _ in range(count)]


def greedy_by_hand(model, source, limit):
    """Decode one sentence, all of it anew for each token, without any state."""
    model.eval()
    target = []
    while len(target) < limit:
        logits = model(np.array([source]), np.array([[BOS, *target]])).numpy()[0, -1]
        token = int(np.argmax(logits))
        if token == EOS:
            break
        target.append(token)
    return target


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_greedy_takes_the_likeliest_token_of_the_whole_sentence_decoded_anew(variant):
    model, texts = make(variant), sources()
    expected = [greedy_by_hand(model, source, 9) for source in texts]
    assert greedy(model, texts, max_length=9) == expected


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_models_above_say_different_things_and_end_in_different_places(variant):
    # Else the tests here would show little.
    targets = greedy(make(variant), sources(), max_length=9)
    assert len({len(target) for target in targets}) >= 4 and len(set(map(tuple, targets))) >= 6


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_a_batch_of_different_lengths_equals_one_sentence_at_a_time(variant):
    model, texts = make(variant), sources(20, seed=2)
    together = greedy(model, texts)
    assert together == [greedy(model, [source])[0] for source in texts]
    order = np.random.default_rng(0).permutation(len(texts))
    assert greedy(model, [texts[i] for i in order]) == [together[i] for i in order]


def never_ending(model):
    """Make all logits equal: argmax then takes token 0, which is not </s>."""
    weight = np.zeros_like(model.output.weight.numpy())
    model.output.weight.replace(weight)
    return model


def test_a_sentence_stops_at_its_limit():
    model = never_ending(make())
    texts = [[4, EOS], [4, 5, 6, EOS], [EOS]]
    assert [len(t) for t in greedy(model, texts)] == [2 * len(s) + 20 for s in texts]
    assert greedy(model, texts, max_length=3) == [[PAD] * 3] * 3
    assert greedy(model, texts, max_length=0) == [[], [], []]


def test_nothing_to_translate_gives_nothing():
    assert greedy(make(), []) == []


def test_the_end_is_not_part_of_the_result():
    model = make()
    weight = np.zeros_like(model.output.weight.numpy())
    model.output.weight.replace(weight)
    model.decoder.layers[1].feed_forward_residual.norm.weight.replace(np.zeros(16))
    model.decoder.layers[1].feed_forward_residual.norm.bias.replace(np.ones(16))
    weight[:, EOS] = 1.0  # </s> is always likeliest
    assert greedy(model, sources(3)) == [[], [], []]


def test_modes_are_left_as_they_were_and_dropout_is_off_meanwhile():
    model = make()
    model.decoder.eval()
    modes = [m.training for m in model.modules()]
    assert True in modes and False in modes
    tl.seed(0)
    once = greedy(model, sources(), max_length=9)
    assert greedy(model, sources(), max_length=9) == once == greedy(model.eval(), sources(), max_length=9)
    model = make()
    model.decoder.eval()
    greedy(model, sources(2), max_length=2)
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(IndexError, match="outside the vocabulary of 11"):
        greedy(model, [[99, EOS]])
    assert [m.training for m in model.modules()] == modes
    assert tl.is_grad_enabled()


def test_greedy_agrees_on_every_backend(backend):
    model = make()
    expected = greedy(model, sources(), max_length=9)
    assert greedy(model.to(backend), sources(), max_length=9) == expected


def test_decoding_records_nothing(monkeypatch):
    model = make()
    step, recorded = model.decode_step, []

    def spy(ids_B, state):
        logits, after = step(ids_B, state)
        recorded.append(logits.requires_grad)
        return logits, after

    monkeypatch.setattr(model, "decode_step", spy)
    greedy(model, sources(), max_length=4)
    assert recorded and not any(recorded)
