"""The recurrent encoder-decoders: padding, steps, selection of rows, attention weights, gradients, and learning."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import RecurrentConfig, RecurrentTranslator, beam_search, greedy
from models.evaluation.attention_weights import attention_weights
from nn import optim

KINDS = ["lstm", "gru", "rnn"]
ATTENTION = ["additive", "dot", "none"]
SOURCES, TARGETS = np.array([[5, 6, 7, 3], [7, 3, 0, 0]]), np.array([[2, 4, 5], [2, 8, 3]])


def built(kind="lstm", attention="dot", layers=2, vocabulary=9, width=8, **options):
    config = RecurrentConfig(vocabulary, vocabulary, layers, width, attention, **{"dropout": 0.0, **options}, kind=kind)
    return RecurrentTranslator(config, tl.Generator(1)).astype("float64")


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_step_by_step_is_decoding_all_at_once(kind, attention):
    model = built(kind, attention)
    logits_BTV = model(SOURCES, TARGETS).numpy()
    visible_BS = model.visible(SOURCES)
    state = model.start(model.encode(SOURCES, visible_BS), visible_BS)
    for t, ids_B in enumerate(TARGETS.T):
        logits_BV, state = model.decode_step(ids_B, state)
        np.testing.assert_allclose(logits_BV.numpy(), logits_BTV[:, t], atol=1e-14)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_source_gets_what_it_would_get_alone(kind, attention):
    model = built(kind, attention)
    np.testing.assert_allclose(
        model(SOURCES[1:, :2], TARGETS[1:]).numpy()[0], model(SOURCES, TARGETS).numpy()[1], atol=1e-14
    )


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_dropped_repeated_and_reordered(kind, attention):
    model = built(kind, attention)
    visible_BS = model.visible(SOURCES)
    state = model.start(model.encode(SOURCES, visible_BS), visible_BS)
    _, state = model.decode_step([2, 2], state)
    expected_BV, _ = model.decode_step([4, 5], state)
    for rows in ([1], [1, 0], [0, 0, 1], [False, True]):
        ids = np.array([4, 5])[rows] if isinstance(rows[0], int) else [5]
        found_RV, _ = model.decode_step(ids, state.select(rows))
        np.testing.assert_allclose(found_RV.numpy(), expected_BV.numpy()[np.asarray(rows)], atol=1e-14)


@pytest.mark.parametrize("attention", ATTENTION)
def test_no_position_sees_later_tokens(attention):
    model, changed = built("lstm", attention), TARGETS.copy()
    changed[:, 2] = 7
    np.testing.assert_array_equal(model(SOURCES, TARGETS).numpy()[:, :2], model(SOURCES, changed).numpy()[:, :2])


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_attention_computes_its_formula(attention):
    a = built("lstm", attention).attention
    h_TD, m_SD = np.random.default_rng(0).standard_normal((2, 4, 8))
    m_SD, visible_S = m_SD[:3], np.array([True, True, False])
    keys_SD = m_SD @ a.key.weight.numpy()
    if attention == "dot":
        scores_TS = h_TD @ keys_SD.T
    else:
        queries_TD = h_TD @ a.query.weight.numpy() + a.query.bias.numpy()
        scores_TS = (np.tanh(queries_TD[:, None] + keys_SD) @ a.score.weight.numpy())[..., 0]
    weights_TS = np.exp(scores_TS) * visible_S
    weights_TS /= weights_TS.sum(axis=1, keepdims=True)
    output_TD = np.tanh(np.concatenate([weights_TS @ m_SD, h_TD], 1) @ a.output.weight.numpy() + a.output.bias.numpy())
    seen = (a.keys(tl.Tensor(m_SD[None])), tl.Tensor(m_SD[None]), tl.Tensor(visible_S[None]))
    h_1TD = tl.Tensor(h_TD[None])
    np.testing.assert_allclose(a.weights(h_1TD, seen[0], seen[2]).numpy()[0], weights_TS, atol=1e-14)
    np.testing.assert_allclose(a(h_1TD, *seen).numpy()[0], output_TD, atol=1e-14)


@pytest.mark.parametrize("attention", ["additive", "dot"])
def test_attention_weights_sum_to_one_and_ignore_padding(attention):
    model = built("gru", attention)
    found = attention_weights(model, [5, 6, 3], [2, 4])
    assert found.cross_LHTS.shape == (1, 1, 2, 3) and found.encoder_LHSS.shape == (0, 1, 3, 3)
    np.testing.assert_allclose(found.cross_LHTS.sum(-1), 1)
    state = model.start(model.encode(SOURCES), model.visible(SOURCES))
    weights_BTS = model.attention.weights(tl.ones((2, 1, 8), "float64"), state.seen[0], state.seen[2]).numpy()
    assert not weights_BTS[1, 0, 2:].any() and weights_BTS[1, 0, :2].all()


def test_a_model_without_attention_has_no_weights():
    with pytest.raises(ValueError, match="this one has attention 'none'"):
        attention_weights(built("lstm", "none"), [5, 3], [2])


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_every_gradient_to_second_order(kind, attention):
    model = built(kind, attention, layers=1, vocabulary=5, width=2)
    names, arrays = zip(*[(name, p.numpy()) for name, p in model.named_parameters()], strict=True)

    def logits(*parameters):
        return nn.functional_call(model, dict(zip(names, parameters, strict=True)), [[4, 3]], [[2, 4]])

    tl.gradcheck(logits, *arrays, order=2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_cross_entropy_of_the_logits(kind):
    model, next_ids = built(kind, tie_embeddings=True), np.array([[4, 5, 3], [8, 3, 0]])
    expected = tl.cross_entropy(model(SOURCES, TARGETS), next_ids, ignore_index=0, label_smoothing=0.1)
    assert abs((model.loss(SOURCES, TARGETS, next_ids, 0.1) - expected).item()) < 1e-12


@pytest.mark.parametrize(("kind", "attention"), [("lstm", "additive"), ("gru", "dot"), ("lstm", "none")])
def test_it_learns_to_copy(kind, attention):
    model = built(kind, attention, layers=1, vocabulary=8, width=32).astype("float32")
    adam, rng = optim.Adam(model.parameters(), 0.01), np.random.default_rng(0)
    for _ in range(300):
        ids = rng.integers(4, 8, (32, 3))
        loss = model.loss(np.c_[ids, np.full(32, 3)], np.c_[np.full(32, 2), ids], np.c_[ids, np.full(32, 3)])
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
    sources = [[4, 5, 6, 3], [7, 7, 5, 3], [6, 4, 7, 3]]
    assert greedy(model, sources) == [source[:-1] for source in sources]
    assert [list(found[0].tokens) for found in beam_search(model, sources, 3)] == [source[:-1] for source in sources]
