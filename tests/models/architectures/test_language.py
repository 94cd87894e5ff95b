"""The language model: what each position reads, its cache, prompts, contexts that end, gradients, and learning."""

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import LanguageConfig, LanguageModel, beam_search, greedy
from models.decoding.forced import force_decode
from models.decoding.token_by_token import sample
from models.evaluation.attention_weights import attention_weights
from models.text.tokens import BOS, EOS, PAD
from nn import optim

POSITIONS = ["rotary", "sinusoidal", "learned", "none"]
TEXT = np.array([[BOS, 5, 4, 6, 8, 7], [BOS, 7, 7, 4, 5, 6]])
NOTHING = np.zeros((2, 0), int)

# positions, norm, tied: each value of each occurs
VARIANTS = [("rotary", "pre", True), ("sinusoidal", "post", False), ("learned", "pre", False), ("none", "post", True)]
each_variant = pytest.mark.parametrize("positions, norm, tied", VARIANTS)


def built(positions="rotary", norm="pre", tied=True, **options):
    sizes = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 12, "dropout": 0.0, "max_length": 8}
    config = LanguageConfig(9, **sizes | options, norm=norm, positions=positions, tie_embeddings=tied)
    model = LanguageModel(config, tl.Generator(1)).astype("float64")
    rng = np.random.default_rng(1)
    model.load_state_dict({n: a + 0.2 * rng.standard_normal(a.shape) for n, a in model.state_dict().items()})
    return model.eval()


def stepped(model, ids_BT, prompts=NOTHING):
    """Return the logits (B, T, V) of decoding the ids one by one."""
    state, found = model.start(model.encode(prompts)), []
    for ids_B in ids_BT.T:
        logits_BV, state = model.decode_step(ids_B, state)
        found.append(logits_BV.numpy())
    return np.stack(found, axis=1)


# ---- what each position reads ----


def by_hand(model, ids_BT):
    """Return the logits, written out with the masks as arrays. The sub-layers are tested elsewhere."""
    pre = model.config.norm == "pre"
    x = tl.Tensor(np.sqrt(8) * model.embedding.weight.numpy()[ids_BT])
    x = model.positions(x) if model.positions else x
    for layer in model.decoder.layers:
        for name, sublayer in (("attention", layer.attention), ("feed_forward", layer.feed_forward)):
            residual = getattr(layer, f"{name}_residual")
            options = {"visible": nn.causal_mask(ids_BT.shape[1])} if name == "attention" else {}
            y = sublayer(residual.norm(x) if pre else x, **options)
            x = x + y if pre else residual.norm(x + y)
    x = model.decoder.norm(x) if pre else x
    return x.numpy() @ (
        model.embedding.weight.numpy().T if model.config.tie_embeddings else model.output.weight.numpy()
    )


@each_variant
def test_the_logits_are_those_of_the_layers_written_out(positions, norm, tied):
    model = built(positions, norm, tied)
    np.testing.assert_allclose(model(NOTHING, TEXT).numpy(), by_hand(model, TEXT), rtol=1e-10, atol=1e-12)


@each_variant
def test_no_position_sees_later_tokens_and_every_one_sees_its_own_and_all_earlier_ones(positions, norm, tied):
    model = built(positions, norm, tied)
    logits_TV = model(NOTHING[:1], TEXT[:1]).numpy()[0]
    for t in range(1, 6):
        changed = TEXT[:1].copy()
        changed[0, t] = 3
        differs_T = (model(NOTHING[:1], changed).numpy()[0] != logits_TV).any(axis=1)
        assert differs_T.tolist() == [False] * t + [True] * (6 - t)


def test_the_texts_of_a_batch_do_not_see_each_other():
    model = built()
    np.testing.assert_allclose(model(NOTHING, TEXT).numpy()[1:], model(NOTHING[1:], TEXT[1:]).numpy(), atol=1e-14)


# ---- the cache ----


@each_variant
def test_decoding_step_by_step_is_decoding_all_at_once(positions, norm, tied):
    model = built(positions, norm, tied)
    with tl.no_grad():
        np.testing.assert_allclose(stepped(model, TEXT), model(NOTHING, TEXT).numpy(), atol=1e-12)
    np.testing.assert_allclose(stepped(model, TEXT), model(NOTHING, TEXT).numpy(), atol=1e-12)  # recorded


@each_variant
@pytest.mark.parametrize("length", [1, 3])
def test_a_prompt_is_read_after_the_first_token(positions, norm, tied, length):
    model = built(positions, norm, tied)
    prompts, target = TEXT[:, 1 : 1 + length], np.delete(TEXT, range(1, 1 + length), axis=1)
    expected = model(NOTHING, TEXT).numpy()[:, length:]
    np.testing.assert_allclose(model(prompts, target).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(stepped(model, target, prompts), expected, atol=1e-12)


@pytest.mark.parametrize("rows", [[1], [1, 0], [0, 0, 1], [False, True]])
def test_rows_are_dropped_repeated_and_reordered(rows):
    model = built()
    with tl.no_grad():
        state = model.start(model.encode(NOTHING)).select(rows)  # before the first token
        for t, ids_B in enumerate(TEXT[rows].T):
            logits_RV, state = model.decode_step(ids_B, state)
            np.testing.assert_allclose(logits_RV.numpy(), model(NOTHING, TEXT).numpy()[rows, t], atol=1e-12)
        _, state = model.decode_step([4, 5], model.decode_step([BOS, BOS], model.start(NOTHING))[1])
        expected_BV, _ = model.decode_step([6, 7], state)
        found_RV, _ = model.decode_step(np.array([6, 7])[rows], state.select(rows))
    np.testing.assert_allclose(found_RV.numpy(), expected_BV.numpy()[rows], atol=1e-12)


def test_two_continuations_of_one_state_do_not_disturb_each_other():
    model = built()
    with tl.no_grad():
        _, state = model.decode_step([BOS, BOS], model.start(NOTHING))
        first, _ = model.decode_step([4, 5], state)
        second, after = model.decode_step([6, 6], state)
        again, _ = model.decode_step([4, 5], state)
        model.decode_step([7, 7], after)
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert (first.numpy() != second.numpy()).any() and state.ids_BT.tolist() == [[BOS], [BOS]]


# ---- prompts ----


def test_padding_in_prompts_is_refused():
    with pytest.raises(ValueError, match=r"prompts of a batch must have one length, got lengths \[1, 3\]"):
        greedy(built(), [[5, 6, 7], [5]])
    with pytest.raises(ValueError, match=r"ids must be \(sentences, length\), got shape \(3,\)"):
        built().encode([5, 6, 7])


@each_variant
def test_search_and_sampling_give_the_probabilities_of_all_positions_at_once(positions, norm, tied):
    model, prompts = built(positions, norm, tied), [[5, 6], [7, 4]]
    found = [*beam_search(model, prompts, 3, max_length=4, n_best=2), [sample(model, prompts, max_length=4)[0]]]
    for i, hypotheses in zip([0, 1, 0], found, strict=True):
        for h in hypotheses:
            (forced,) = force_decode(model, prompts[i : i + 1], [h.tokens], ended=[h.ended])
            np.testing.assert_allclose(forced.log_probs, h.log_probs, atol=1e-12)
            log_probs_TV = tl.log_softmax(model(NOTHING[:1], [[BOS, *prompts[i], *h.written[:-1]]])).numpy()[0]
            expected = [log_probs_TV[2 + t, token] for t, token in enumerate(h.written)]
            np.testing.assert_allclose(h.log_probs, expected, atol=1e-12)


def test_no_prompt_at_all_is_possible():
    model = built()
    (found,) = greedy(model, [[]], max_length=1, min_length=1)
    logits_V = model([[]], [[BOS]]).numpy()[0, 0]
    assert found == [np.where(np.arange(9) == EOS, -np.inf, logits_V).argmax()]


# ---- a context that ends ----


@each_variant
def test_beyond_the_context_the_model_begins_again_with_its_latest_half(positions, norm, tied):
    model = built(positions, norm, tied)
    ids = np.random.default_rng(0).integers(3, 9, (2, 30))
    ids[:, 0] = BOS
    with tl.no_grad():
        found = stepped(model, ids)
        read = ids[:, :0]
        for t in range(30):
            read = np.concatenate([read, ids[:, t : t + 1]], axis=1)
            if read.shape[1] > 8:
                read = np.concatenate([ids[:, :1], ids[:, t - 3 : t + 1]], axis=1)  # <s>, and 8 / 2 tokens
            np.testing.assert_allclose(found[:, t], model(NOTHING, read).numpy()[:, -1], atol=1e-12)


@pytest.mark.parametrize("length, read", [(7, 8), (8, 5), (100, 5)])
def test_of_a_prompt_beyond_the_context_the_end_is_read(length, read):
    model, prompts = built("learned"), np.random.default_rng(0).integers(3, 9, (1, length))
    with tl.no_grad():
        logits_BV, state = model.decode_step([BOS], model.start(model.encode(prompts)))
        assert state.ids_BT.tolist() == [[BOS, *prompts[0, -(read - 1) :]]] and state.own[0].keys.shape[2] == read
        np.testing.assert_allclose(logits_BV.numpy(), model(NOTHING[:1], state.ids_BT).numpy()[:, -1], atol=1e-12)


def test_the_shortest_context_holds_one_token_beside_the_first():
    model = built(max_length=2)
    with tl.no_grad():
        found = stepped(model, TEXT)
        np.testing.assert_allclose(found[:, 3], model(NOTHING, TEXT[:, [0, 3]]).numpy()[:, 1], atol=1e-12)


# ---- loss and gradients ----


@each_variant
def test_every_gradient_to_second_order(positions, norm, tied):
    model = built(positions, norm, tied, layers=1, width=4, feed_forward=3, max_length=3)
    names, arrays = zip(*[(name, p.numpy()) for name, p in model.named_parameters()], strict=True)

    def logits(*parameters):
        return nn.functional_call(model, dict(zip(names, parameters, strict=True)), [[]], [[BOS, 4]])

    tl.gradcheck(logits, *arrays, order=2)


@each_variant
def test_the_loss_is_the_cross_entropy_of_the_logits(positions, norm, tied):
    model, next_ids = built(positions, norm, tied), np.array([[5, 4, 6, 8, 7, 3], [7, 7, 4, PAD, PAD, PAD]])
    expected = tl.cross_entropy(model(NOTHING, TEXT), next_ids, ignore_index=PAD, label_smoothing=0.1)
    assert abs((model.loss(NOTHING, TEXT, next_ids, 0.1) - expected).item()) < 1e-12


def test_dropout_acts_in_training_alone():
    model = built(dropout=0.5)
    expected = model(NOTHING, TEXT).numpy()
    model.train()
    assert (model(NOTHING, TEXT).numpy() != model(NOTHING, TEXT).numpy()).any()
    with model.evaluating():
        np.testing.assert_array_equal(model(NOTHING, TEXT).numpy(), expected)


def test_attention_weights_are_those_of_the_decoder_alone():
    found = attention_weights(built(), [5, 6], [BOS, 4])
    assert found.decoder_LHTT.shape == (2, 2, 4, 4)  # of <s> 5 6 4
    assert found.encoder_LHSS.size == found.cross_LHTS.size == 0
    np.testing.assert_allclose(found.decoder_LHTT.sum(-1), 1)
    assert not np.triu(found.decoder_LHTT, 1).any() and np.tril(found.decoder_LHTT).all(axis=(0, 1))[2, 1]


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_it_learns_to_go_on_and_keeps_going_beyond_its_context(positions):
    model = built(positions, width=16, feed_forward=32).astype("float32").train()
    adam, rng = optim.Adam(model.parameters(), 0.01), np.random.default_rng(0)
    for _ in range(200):
        ids = 4 + (rng.integers(0, 5, (16, 1)) + np.arange(8)) % 5  # 4 5 6 7 8 4 5 ..., from anywhere
        model.loss(np.zeros((16, 0)), np.c_[np.full(16, BOS), ids[:, :-1]], ids).backward()
        adam.step()
        adam.zero_grad()
    assert greedy(model, [[6]], max_length=25) == [[4 + (3 + t) % 5 for t in range(25)]]


def test_impossible_configurations_are_refused_with_every_value():
    with pytest.raises(ValueError) as caught:
        LanguageModel(LanguageConfig(0, width=6, heads=4, dropout=1.5, norm="both", positions="absolute", max_length=1))
    for part in (
        "vocabulary must be at least 1, got 0", "heads must divide width, got 4 and 6", "got 1.5", "'both'",
        "positions must be 'sinusoidal', 'learned', 'rotary' or 'none', got 'absolute'", "at least 2, for <s>",
    ):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="width / heads must be even for rotary positions, got 6 / 2"):
        LanguageModel(LanguageConfig(9, width=6, heads=2))
