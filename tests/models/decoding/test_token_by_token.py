"""Greedy decoding compared with a plain version: the whole target again at each step, one sentence at a time."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.architectures import decoder_state, indexed_state, prepared, transformer
from models.architectures.decoder_state import KeyValueCache
from models.decoding import token_by_token as decoding
from models.decoding.token_by_token import greedy
from models.text.tokens import BOS, EOS, PAD
from nn import optim

VOCABULARY = 11
VARIANTS = ({}, {"norm": "pre", "positions": "learned"}, {"tie_embeddings": True})


def fresh(variant):
    options = {"layers": 2, "width": 16, "heads": 2, "feed_forward": 32, "dropout": 0.1} | VARIANTS[variant]
    return Transformer(TransformerConfig(VOCABULARY, VOCABULARY, **options), tl.Generator(variant))


def make(variant=0):
    """Return a model that has begun to learn to write backwards; its targets differ in tokens and in length."""
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
    """Decode one sentence, all of it again for each token, without any state."""
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
def test_greedy_takes_the_likeliest_token_of_the_whole_prefix_decoded_again(variant):
    model, texts = make(variant), sources()
    expected = [greedy_by_hand(model, source, 9) for source in texts]
    assert greedy(model, texts, max_length=9) == expected


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_the_models_above_write_different_targets_of_different_lengths(variant):
    # Otherwise the tests here would show little.
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


def test_when_ended_sentences_leave_the_batch_changes_no_result(monkeypatch):
    monkeypatch.setattr(transformer, "can_prepare", lambda *arguments: False)  # such a state drops them at once
    model, texts = make(), sources(20, seed=2)
    step, rows = model.decode_step, []
    monkeypatch.setattr(model, "decode_step", lambda ids_B, state: rows.append(len(ids_B)) or step(ids_B, state))
    results, batches = [], []
    for ended in (1e-9, 0.25, 0.7, 2.0):  # at once, ..., never
        monkeypatch.setattr(decoding, "ENDED", ended)
        results.append(greedy(model, texts))
        batches.append(list(rows))
        rows.clear()
    assert results == results[:1] * 4
    at_once, usual, late, never = batches
    assert len({*map(len, batches)}) == 1  # the same number of steps each
    assert sum(at_once) <= sum(usual) < sum(late) < sum(never) == len(texts) * len(never)


def test_nothing_to_translate_gives_nothing():
    assert greedy(make(), []) == []


def test_the_end_is_not_part_of_the_result():
    model = make()
    weight = np.zeros_like(model.output.weight.numpy())
    weight[:, EOS] = 1.0  # </s> is always likeliest
    model.output.weight.replace(weight)
    model.decoder.layers[1].feed_forward_residual.norm.weight.replace(np.zeros(16))
    model.decoder.layers[1].feed_forward_residual.norm.bias.replace(np.ones(16))
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


# ---- keys and values that grow in place ----


def some(length, seed=0):
    """Return keys or values (2 sentences, 3 heads, length, 4)."""
    return tl.Tensor(np.random.default_rng(seed).normal(size=(2, 3, length, 4)))


def appended(kept, *seeds):
    for seed in seeds:
        kept = kept.append(some(1, seed), some(1, -seed % 97))
    return kept


def joined(*seeds):
    """Return the expected result of `appended`, joined at once."""
    keys = [some(3).numpy(), *[some(1, seed).numpy() for seed in seeds]]
    values = [some(3, 1).numpy(), *[some(1, -seed % 97).numpy() for seed in seeds]]
    return np.concatenate(keys, axis=2), np.concatenate(values, axis=2)


def assert_kept(kept, *seeds):
    for ours, expected in zip(kept, joined(*seeds), strict=True):
        np.testing.assert_array_equal(ours.numpy(), expected)


def test_keys_and_values_are_written_into_free_positions_and_rarely_copied():
    with tl.no_grad():
        kept, buffers = KeyValueCache(some(3), some(3, 1)), []
        for seed in range(2, 202):
            kept = appended(kept, seed)
            if not buffers or kept.buffer is not buffers[-1]:
                buffers.append(kept.buffer)
            assert np.shares_memory(kept.keys.data, kept.buffer.keys.data)
    assert_kept(kept, *range(2, 202))
    assert len(buffers) <= 6  # 3 positions + 16, then doubled: 38, 76, 152, 304


def test_appending_never_changes_an_earlier_cache():
    with tl.no_grad():
        start = KeyValueCache(some(3), some(3, 1))
        a = appended(start, 5)
        ab, ac = appended(a, 6), appended(a, 7)  # the second finds its position taken
        abd, ace, af = appended(ab, 8), appended(ac, 9), appended(a, 10, 11)
        assert ab.buffer is a.buffer is abd.buffer and ac.buffer is not a.buffer and ac.buffer is ace.buffer
        again = appended(start, 12)
    expected = {start: (), a: (5,), ab: (5, 6), ac: (5, 7), abd: (5, 6, 8), ace: (5, 7, 9), af: (5, 10, 11)}
    for kept, seeds in {**expected, again: (12,)}.items():
        assert_kept(kept, *seeds)


def test_several_threads_may_append_to_one_cache():
    with tl.no_grad():
        kept = appended(KeyValueCache(some(3), some(3, 1)), 2)

    def continued(seed):
        with tl.no_grad():
            return appended(kept, *[seed] * 30)

    with ThreadPoolExecutor(8) as pool:
        for seed, result in zip(range(3, 35), pool.map(continued, range(3, 35)), strict=True):
            assert_kept(result, 2, *[seed] * 30)


def test_a_recorded_step_concatenates_and_both_kinds_of_step_may_alternate():
    with tl.no_grad():
        before = appended(KeyValueCache(some(3), some(3, 1)), 2)
    new = tl.Tensor(some(1, 3).numpy(), requires_grad=True)
    kept = before.append(new, some(1, -3 % 97))
    assert kept.buffer is None and kept.keys.requires_grad
    with tl.no_grad():
        after = appended(kept, 4, 5)
    assert_kept(after, 2, 3, 4, 5)
    (kept.keys * some(5, 9)).sum().backward()
    np.testing.assert_array_equal(new.grad.numpy(), some(5, 9).numpy()[:, :, 4:])


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_steps_from_branching_states_equal_decoding_from_the_beginning(variant, monkeypatch, backend):
    monkeypatch.setattr(decoder_state, "MIN_GROWTH", 2)  # so that buffers are outgrown, too
    monkeypatch.setattr(indexed_state, "MIN_ROOM", 2)
    monkeypatch.setattr(prepared, "FEWEST_SOURCES", 1)
    model, rng = make(variant).eval().to(backend), np.random.default_rng(variant)
    source = np.array([[4, 5, 6, EOS], [7, 8, EOS, PAD], [9, EOS, PAD, PAD]])
    with tl.no_grad():
        visible = model.visible(source)
        memory = model.encode(source, visible)
        known = [(model.start(memory, visible), np.zeros((3, 0), int), np.arange(3))]
        for _ in range(40):  # each from some earlier state, with some of its sentences in some order
            state, prefix, rows = known[rng.integers(len(known))]
            if rng.random() < 0.3:
                picked = rng.integers(0, len(rows), 3)
                state, prefix, rows = state.select(picked), prefix[picked], rows[picked]
            prefix = np.concatenate([prefix, rng.integers(4, VOCABULARY, (3, 1))], axis=1)
            logits, state = model.decode_step(prefix[:, -1], state)
            known.append((state, prefix, rows))
            order = rows if backend == "numpy" else model.backend.asarray(rows)
            whole = model.decode(prefix, memory[order], visible[order]).numpy()[:, -1]
            np.testing.assert_allclose(logits.numpy(), whole, rtol=0, atol=1e-10)
        assert max(state.length for state, _, _ in known) > 5


def test_gradients_flow_through_recorded_steps_as_through_decoding_at_once():
    model = make().eval()
    source, target = np.array([[4, 5, 6, EOS], [7, 8, EOS, PAD]]), np.array([[BOS, 6, 5, 4], [BOS, 8, 7, 5]])
    visible = model.visible(source)
    weights = tl.Tensor(np.random.default_rng(0).normal(size=(2, 4, VOCABULARY)))
    parameters = list(model.parameters())
    at_once = tl.grad((model(source, target) * weights).sum(), parameters)
    state, total = model.start(model.encode(source, visible), visible), 0
    for t in range(4):
        logits, state = model.decode_step(target[:, t], state)
        total = total + (logits * weights[:, t]).sum()
    for ours, expected in zip(tl.grad(total, parameters), at_once, strict=True):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=0, atol=1e-10)
