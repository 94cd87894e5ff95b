"""The whole encoder-decoder: every gradient to second order, which outputs depend on which inputs, and learning."""

import dataclasses
import gc
import itertools
import math
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from models.architectures import prepared
from models.architectures.indexed_state import IndexedState
from models.text.tokens import BOS, EOS, PAD
from nn import optim

# Two sentences of unequal length on both sides, so that every mask has something to hide.
SOURCE = np.array([[4, 5, 6, EOS], [6, EOS, PAD, PAD]])
TARGET = np.array([[BOS, 5, 4], [BOS, 6, PAD]])
WANTED = np.array([[5, 4, EOS], [6, EOS, PAD]])

TINY = TransformerConfig(
    source_vocabulary=7, target_vocabulary=7, layers=1, width=4, heads=2, feed_forward=6, dropout=0.0
)  # fmt: skip


def make(seed=1, dtype="float64", **changes):
    """Return a small model whose parameters are all away from zero and one."""
    model = Transformer(dataclasses.replace(TINY, **changes), tl.Generator(seed)).astype(dtype)
    rng = np.random.default_rng(seed)
    model.load_state_dict({n: a + 0.2 * rng.standard_normal(a.shape) for n, a in model.state_dict().items()})
    return model.eval()


def loss_of(model, source=SOURCE, target=TARGET, wanted=WANTED):
    return tl.cross_entropy(model(source, target), wanted, ignore_index=PAD, label_smoothing=0.1)


def train(model, steps, **options):
    """Take `steps` steps of Adam on the two sentences."""
    optimizer = optim.Adam(model.named_parameters(), 1e-2, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model).backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    return optimizer


VARIANTS = [
    {"layers": layers, "norm": norm, "tie_embeddings": tied, "positions": positions}
    for (layers, norm, tied), positions in zip(
        itertools.product([1, 2], ["post", "pre"], [False, True]),
        ["sinusoidal", "learned", "learned", "sinusoidal"] * 2,
        strict=True,
    )
]
IDS = [f"{v['layers']}+{v['layers']} {v['norm']} {'tied' if v['tie_embeddings'] else 'untied'}" for v in VARIANTS]
VARIANTS += [
    {"layers": 2, "norm": "pre", "tie_embeddings": False, "positions": "rotary"},
    {"layers": 1, "norm": "post", "tie_embeddings": True, "positions": "none"},
]
IDS += ["rotary", "no positions"]


# ---- the architecture ----


def by_hand(model, source, target):
    """Return the logits by figure 1 of the paper, written out. The sub-layers are tested elsewhere."""
    pre, tied = model.config.norm == "pre", model.config.tie_embeddings

    def add_norm(x, wrapped, sublayer):
        return x + sublayer(wrapped.norm(x)) if pre else wrapped.norm(x + sublayer(x))

    def embedded(embedding, positions, ids):
        x = tl.Tensor(math.sqrt(model.config.width) * embedding.weight.numpy()[ids])
        return positions(x) if positions else x

    words = nn.padding_mask((source != PAD).sum(axis=1), source.shape[1])
    x = embedded(model.source_embedding, model.source_positions, source)
    for layer in model.encoder.layers:
        x = add_norm(x, layer.attention_residual, lambda x, at=layer.attention: at(x, visible=words))
        x = add_norm(x, layer.feed_forward_residual, layer.feed_forward)
    memory = model.encoder.norm(x) if pre else x
    x = embedded(model.source_embedding if tied else model.target_embedding, model.target_positions, target)
    earlier = nn.causal_mask(target.shape[1])
    for layer in model.decoder.layers:
        x = add_norm(x, layer.attention_residual, lambda x, at=layer.attention: at(x, visible=earlier))
        x = add_norm(x, layer.cross_attention_residual, lambda x, at=layer.cross_attention: at(x, memory, words))
        x = add_norm(x, layer.feed_forward_residual, layer.feed_forward)
    x = model.decoder.norm(x) if pre else x
    return x.numpy() @ (model.source_embedding.weight.numpy().T if tied else model.output.weight.numpy())


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
def test_the_logits_are_those_of_the_paper_written_out(variant):
    model = make(**variant)
    np.testing.assert_allclose(model(SOURCE, TARGET).numpy(), by_hand(model, SOURCE, TARGET), rtol=1e-10, atol=1e-12)


# ---- gradients ----


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[3]], ids=[IDS[0], IDS[3]])
def test_every_element_of_every_parameter_has_the_gradient_of_finite_differences(variant):
    model = make(max_length=4, **variant)
    state = model.state_dict()

    def transformer(*tensors):
        return nn.functional_call(model, dict(zip(state, tensors, strict=True)), SOURCE, TARGET)

    assert tl.gradcheck(transformer, *state.values(), order=1).first < 1e-8


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
def test_the_gradient_of_the_gradient_is_right_for_every_element_of_every_parameter(variant):
    """The Hessian H of <c, logits> over parameters and c, times random directions v, at every element of H v.

    By double backward H v is the gradient of <g, v>, g being the gradient; by differences it is the derivative of g
    along v. An error anywhere in H shows in H v, at the cost of some passes and not of some for every element.
    """
    model = make(max_length=4, **variant)
    state = model.state_dict()
    rng = np.random.default_rng(0)
    point = [*state.values(), rng.standard_normal((*TARGET.shape, 7))]

    def gradient(arrays, create_graph):
        *parameters, c = xs = [tl.Tensor(a, requires_grad=True) for a in arrays]
        logits = nn.functional_call(model, dict(zip(state, parameters, strict=True)), SOURCE, TARGET)
        return xs, tl.grad((logits * c).sum(), xs, create_graph=create_graph, allow_unused=True)

    def gradient_along(v, offset):
        _, gs = gradient([a + offset * d for a, d in zip(point, v, strict=True)], create_graph=False)
        return [g.numpy() for g in gs]

    h = 1e-5
    for _ in range(3):
        v = [rng.standard_normal(a.shape) for a in point]
        xs, gs = gradient(point, create_graph=True)
        along = sum((g * tl.Tensor(d)).sum() for g, d in zip(gs, v, strict=True))
        by_double_backward = [x.numpy() for x in tl.grad(along, xs)]
        steps = [gradient_along(v, k * h) for k in (1, -1, 2, -2)]
        by_differences = [(8 * (a - b) - (c - d)) / (12 * h) for a, b, c, d in zip(*steps, strict=True)]
        for name, ours, theirs in zip([*state, "c"], by_double_backward, by_differences, strict=True):
            scale = max(np.abs(ours).max(), np.abs(theirs).max(), 1e-3)
            assert np.abs(ours - theirs).max() < 1e-6 * scale, name


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
def test_the_gradient_of_the_loss_is_right_along_random_directions_of_each_parameter(variant):
    model = make(max_length=4, **variant)
    loss_of(model).backward()
    rng = np.random.default_rng(2)
    for name, p in model.named_parameters():
        here, v = p.data, rng.standard_normal(p.shape)

        def loss_at(offset, p=p, here=here, v=v):
            with tl.no_grad():
                p.replace(here + offset * v)
                return loss_of(model).item()

        h = 1e-5
        numeric = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h)
        p.replace(here)
        assert float((p.grad.numpy() * v).sum()) == pytest.approx(numeric, rel=1e-6, abs=1e-9), name


# ---- step by step ----


@pytest.mark.parametrize("fewest", [1, 8], ids=["compiled", "by modules"])
@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
def test_step_by_step_logits_equal_teacher_forced_logits(variant, fewest, monkeypatch):
    monkeypatch.setattr(prepared, "FEWEST_SOURCES", fewest)
    model = make(**variant)
    target = np.array([[BOS, 5, 4, 6, 1, 4], [BOS, 6, 6, 5, 4, 4]])
    visible = model.visible(SOURCE)
    with tl.no_grad():
        expected = model(SOURCE, target).numpy()
        state = model.start(model.encode(SOURCE), visible)
        for t in range(target.shape[1]):
            logits, state = model.decode_step(target[:, t], state)
            assert logits.shape == (2, 7) and state.length == t + 1
            np.testing.assert_allclose(logits.numpy(), expected[:, t], rtol=0, atol=1e-10)


def test_steps_continue_past_the_prepared_sinusoids():
    model = make(max_length=3)
    target = np.array([[BOS, 5, 4, 6, 1, 4]])
    expected = model(SOURCE[:1], target).numpy()
    state = model.start(model.encode(SOURCE[:1]))
    for t in range(6):
        logits, state = model.decode_step(target[:, t], state)
        np.testing.assert_allclose(logits.numpy(), expected[:, t], rtol=0, atol=1e-10)


def state_arrays(state):
    state = state.as_tensors() if isinstance(state, IndexedState) else state
    pairs = [*state.cross, *state.own]
    return [x.numpy() for pair in pairs for x in pair] + ([] if state.visible is None else [state.visible.numpy()])


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_layer_steps_with_its_cache_through_the_hooks_of_its_residuals(norm):
    model, seen = make(norm=norm), []
    layer = model.decoder.layers[0]
    for name in ("attention_residual", "cross_attention_residual", "feed_forward_residual"):
        getattr(layer, name).register_forward_hook(lambda module, args, output: seen.append(output))
    state = model.start(model.encode(SOURCE), model.visible(SOURCE))
    x_B1D = tl.normal((2, 1, 4), dtype="float64")
    y_B1D, cache = layer.step(x_B1D, None, state.cross[0], state.visible)
    (after_past, own), after_memory, output = seen
    assert own is cache and output is y_B1D and after_past.shape == after_memory.shape == (2, 1, 4)
    assert cache.keys.shape == cache.values.shape == (2, 2, 1, 2)
    assert layer.step(x_B1D, cache, state.cross[0], state.visible)[1].keys.shape == (2, 2, 2, 2)


@pytest.mark.parametrize(("recorded", "fewest"), [(True, 8), (False, 8), (False, 1)])
def test_a_step_does_not_change_the_state_it_was_given(recorded, fewest, monkeypatch):
    monkeypatch.setattr(prepared, "FEWEST_SOURCES", fewest)
    with nullcontext() if recorded else tl.no_grad():
        steps_from_one_state(make(layers=2))


def steps_from_one_state(model):
    state = model.start(model.encode(SOURCE), model.visible(SOURCE))
    _, state = model.decode_step([BOS, BOS], state)
    before = [a.copy() for a in state_arrays(state)]
    first, after = model.decode_step([4, 5], state)
    model.decode_step([6, 6], state)
    model.decode_step([1, 1], after)
    again, _ = model.decode_step([4, 5], state)
    np.testing.assert_array_equal(first.numpy(), again.numpy())
    assert state.length == 1
    for a, b in zip(before, state_arrays(state), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        state.length = 5
    with pytest.raises(ValueError, match=r"decode_step: ids must be \(2,\), one for each row; got shape \(3,\)"):
        model.decode_step([4, 5, 6], state)


def test_two_decodings_may_alternate():
    model = make(layers=2)

    def steps(source, tokens):
        state = model.start(model.encode(source), model.visible(source))
        for token in tokens:
            logits, state = model.decode_step([token], state)
            yield logits.numpy()

    alone = [list(steps(SOURCE[:1], [BOS, 4, 5])), list(steps(SOURCE[1:], [BOS, 6, 6]))]
    together = zip(steps(SOURCE[:1], [BOS, 4, 5]), steps(SOURCE[1:], [BOS, 6, 6]), strict=True)
    for pair, expected in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(pair, expected)


@pytest.mark.parametrize(
    ("rows", "order"),
    [([1, 0], [1, 0]), ([1, 1, 0], [1, 1, 0]), ([False, True], [1]), (np.array([], int), []), ([-1], [1])],
)
def test_select_drops_repeats_and_reorders_sentences(rows, order, backend):
    model = make(dtype="float32", layers=2).to(backend)
    state = model.start(model.encode(SOURCE), model.visible(SOURCE))
    _, state = model.decode_step([BOS, BOS], state)
    picked = state.select(rows)
    for ours, all_rows in zip(state_arrays(picked), state_arrays(state), strict=True):
        np.testing.assert_array_equal(ours, all_rows[order])
    tokens = np.array([4, 5])
    everything, _ = model.decode_step(tokens, state)
    chosen, _ = model.decode_step(tokens[order], picked)
    np.testing.assert_allclose(chosen.numpy(), everything.numpy()[order], rtol=1e-4, atol=1e-5)


# ---- dependencies ----


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_later_target_tokens_change_no_earlier_logit(norm):
    model = make(layers=2, norm=norm)
    target = np.array([[BOS, 5, 4, 6], [BOS, 6, 4, 1]])
    before = model(SOURCE, target).numpy()
    for t in range(1, 4):
        changed = target.copy()
        changed[:, t:] = [[1] * (4 - t), [5] * (4 - t)]
        after = model(SOURCE, changed).numpy()
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.abs(after[:, t:] - before[:, t:]).max(axis=(1, 2)).min() > 1e-3  # and it does change the others


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_amount_of_padding_changes_no_logit(norm):
    model = make(layers=2, norm=norm)
    before = model(SOURCE, TARGET).numpy()
    wider = np.pad(SOURCE, ((0, 0), (0, 5)), constant_values=PAD), np.pad(TARGET, ((0, 0), (0, 3)), constant_values=PAD)
    after = model(*wider).numpy()[:, :3]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)
    single = model(SOURCE[1:, :2], TARGET[1:, :2]).numpy()
    np.testing.assert_allclose(single, before[1:, :2], rtol=0, atol=1e-12)


def test_the_embedding_of_padding_does_not_matter():
    model = make(layers=2)
    before = model(SOURCE, TARGET).numpy()
    for embedding in (model.source_embedding, model.target_embedding):
        table = embedding.weight.numpy().copy()
        table[PAD] = 1e3
        embedding.weight.replace(table)
    after = model(SOURCE, TARGET).numpy()
    words = TARGET != PAD
    np.testing.assert_allclose(after[words], before[words], rtol=1e-13)  # attention may shift a whole block's scores
    loss_of(model).backward()
    assert not model.source_embedding.weight.grad.numpy()[PAD].any()
    assert not model.target_embedding.weight.grad.numpy()[PAD].any()


def test_another_sentence_of_the_batch_changes_nothing():
    model = make(layers=2)
    before = model(SOURCE, TARGET).numpy()
    source, target = SOURCE.copy(), TARGET.copy()
    source[1], target[1] = [5, 5, 5, EOS], [BOS, 1, 4]
    after = model(source, target).numpy()
    np.testing.assert_array_equal(after[0], before[0])
    assert np.abs(after[1] - before[1]).min() > 1e-6


def test_every_source_token_matters_to_every_target_position():
    model = make(layers=2)
    before = model(SOURCE, TARGET).numpy()
    for s in range(4):
        source = SOURCE.copy()
        source[0, s] = 1
        after = model(source, TARGET).numpy()
        assert np.abs(after[0] - before[0]).max(axis=-1).min() > 1e-6


def test_masks_are_made_from_padding_or_given():
    model = make()
    assert model.visible([[4, PAD]]).numpy().tolist() == [[True, False]]
    lengths = nn.padding_mask([4, 2])
    memory = model.encode(SOURCE, lengths)
    np.testing.assert_array_equal(memory.numpy(), model.encode(SOURCE).numpy())
    by_lengths = model.decode(TARGET, memory, lengths)
    np.testing.assert_array_equal(by_lengths.numpy(), model(SOURCE, TARGET).numpy())
    assert np.abs(model.decode(TARGET, memory).numpy() - by_lengths.numpy())[1].max() > 1e-3


# ---- shape and size ----


def test_the_body_of_the_base_model_has_the_published_number_of_parameters():
    model = Transformer(TransformerConfig(source_vocabulary=4, target_vocabulary=4))
    assert model.encoder.parameter_count() + model.decoder.parameter_count() == 44_138_496
    ends = [name for name, _ in model.named_parameters() if not name.startswith(("encoder.", "decoder."))]
    assert ends == ["source_embedding.weight", "target_embedding.weight", "output.weight"]


def test_tied_embeddings_are_one_matrix_with_one_gradient():
    tied, loose = make(tie_embeddings=True), make()
    assert tied.parameter_count() == loose.parameter_count() - 2 * 7 * 4
    state = tied.state_dict()
    table = state["source_embedding.weight"]
    loose.load_state_dict(state | {"target_embedding.weight": table, "output.weight": table.T})
    np.testing.assert_allclose(tied(SOURCE, TARGET).numpy(), loose(SOURCE, TARGET).numpy(), rtol=1e-12)
    loss_of(tied).backward()
    loss_of(loose).backward()
    parts = [m.weight.grad.numpy() for m in (loose.source_embedding, loose.target_embedding)]
    together = parts[0] + parts[1] + loose.output.weight.grad.numpy().T
    np.testing.assert_allclose(tied.source_embedding.weight.grad.numpy(), together, rtol=1e-10, atol=1e-14)


def test_pre_norm_ends_each_stack_with_a_norm_and_post_norm_does_not():
    assert make(norm="pre").encoder.norm is not None and make(norm="pre").decoder.norm is not None
    post = make()
    assert post.encoder.norm is None and post.decoder.norm is None


def test_embeddings_are_scaled_by_the_root_of_the_width():
    model = make(width=16)
    x = model._embed(model.source_embedding, model.source_positions, SOURCE).numpy()
    expected = 4 * model.source_embedding.weight.numpy()[SOURCE] + nn.positions.sinusoids(4, 16)
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_an_impossible_configuration_is_refused_with_every_reason_and_value():
    with pytest.raises(ValueError) as caught:
        Transformer(TransformerConfig(0, 9, width=6, heads=4, dropout=1.5, norm="both", positions="absolute",
                                      tie_embeddings=True))  # fmt: skip
    for part in (
        "source_vocabulary must be at least 1, got 0", "heads must divide width, got 4 and 6", "got 1.5", "'both'",
        "'absolute'", "one vocabulary for source and target, got sizes 0 and 9",
    ):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="width must be even for sinusoidal positions, got 7"):
        Transformer(TransformerConfig(5, 5, width=7, heads=7))


def test_rotary_positions_need_heads_of_even_width():
    with pytest.raises(ValueError, match="width / heads must be even for rotary positions, got 6 / 2"):
        TransformerConfig(9, 9, width=6, heads=2, positions="rotary").check()


@pytest.mark.parametrize("positions, bag", [("none", True), ("rotary", False), ("sinusoidal", False)])
def test_without_positions_the_encoder_reads_a_bag_of_words(positions, bag):
    model, order = make(positions=positions, layers=2), [2, 0, 3, 1]
    memory_SD, permuted_SD = (model.encode(ids).numpy()[0] for ids in (SOURCE[:1], SOURCE[:1, order]))
    assert np.allclose(memory_SD[order], permuted_SD, atol=1e-12) == bag


def test_rotary_positions_turn_self_attention_of_both_sides_and_not_the_attention_to_the_memory():
    model = make(positions="rotary", layers=2)
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        assert layer.attention.rotary.head_width == 2
    assert all(layer.cross_attention.rotary is None for layer in model.decoder.layers)
    assert model.longest_target is None and not any("position" in name for name in model.state_dict())


def test_ids_outside_the_vocabulary_and_sentences_too_long_are_refused():
    model = make(positions="learned", max_length=4)
    with pytest.raises(IndexError, match=r"token id 7 at position \(1, 0\) is outside the vocabulary of 7"):
        model(SOURCE, np.array([[BOS], [7]]))
    with pytest.raises(ValueError, match="has 4 positions, got a sequence that ends at 5"):
        model(SOURCE, np.full((2, 5), BOS))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_tables_that_are_computed_are_not_part_of_a_checkpoint(positions):
    """Checkpoints hold parameters only, so those written before the tables became buffers load as before."""
    model = make(positions=positions)
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    assert len(list(model.buffers())) == (2 if positions == "sinusoidal" else 0)
    tables = {name: buffer.numpy() for name, buffer in model.named_buffers()}
    with pytest.raises(ValueError, match=r"unexpected source_positions\.table") if tables else nullcontext():
        model.load_state_dict(model.state_dict() | tables)


def test_a_source_mask_with_other_axes_is_refused():
    model = make()
    for wrong in (model.visible(SOURCE)[0], model.visible(SOURCE)[:, None]):
        with pytest.raises(ValueError, match=r"source_visible must be \(B, S\) or \(B, 1, 1, S\), got "):
            model.encode(SOURCE, wrong)


# ---- training ----


def test_eight_sentence_pairs_are_learned_by_heart():
    rng = np.random.default_rng(0)
    words = rng.integers(4, 20, (8, 2, 5))
    source = np.pad(words[:, 0], ((0, 0), (0, 1)), constant_values=EOS)
    target = np.pad(words[:, 1], ((0, 0), (1, 0)), constant_values=BOS)
    wanted = np.pad(words[:, 1], ((0, 0), (0, 1)), constant_values=EOS)
    config = TransformerConfig(20, 20, layers=2, width=32, heads=4, feed_forward=64, dropout=0.0)
    model = Transformer(config, tl.Generator(0))
    optimizer = optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = tl.cross_entropy(model(source, target), wanted, ignore_index=PAD)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.01
    np.testing.assert_array_equal(model(source, target).argmax(-1).numpy(), wanted)


def test_a_float32_step_computes_nothing_in_another_dtype(monkeypatch):
    def functions(cls):
        return {cls}.union(*(functions(below) for below in cls.__subclasses__()))

    produced = set()

    def spied(backward):
        def spy(self, *dys):
            dxs = backward(self, *dys)
            for dx in dxs if isinstance(dxs, tuple) else (dxs,):
                produced.add((self.name, None if dx is None else str(dx.dtype)))
            return dxs

        return spy

    for cls in functions(tl.Function):
        if "backward" in vars(cls):
            monkeypatch.setattr(cls, "backward", spied(cls.backward))
    model = make(dtype="float32", layers=2, dropout=0.1).train()
    optimizer = optim.Adam(model.named_parameters(), 1e-3, weight_decay=0.01)
    loss = loss_of(model)
    recorded = {(node.op, value.dtype) for node in tl.graph(loss) for value in node.outputs}
    recorded |= {("leaf", leaf.value.dtype) for leaf in tl.graph(loss).leaves}
    loss.backward()
    optim.clip_grad_norm(model.parameters(), 0.01)
    optimizer.step()
    held = {(p.name, str(x.dtype)) for p in model.parameters() for x in (p, p.grad)}
    slots = {(name, str(a.dtype)) for name, s in optimizer.state.items() for a in s.values()}
    assert len(recorded) > 10 and len(produced) > 10 and len(slots) > 10
    others = [pair for pair in recorded | produced | held | slots if pair[1] not in ("float32", "", None)]
    assert not others


def test_a_training_step_agrees_on_every_backend(backend):
    def step(place):
        model = make(dtype="float32", layers=2, norm="pre").to(place)
        train(model, 2, weight_decay=0.01)
        assert all(p.backend is tl.get_backend(place) for p in model.parameters())
        gradients = [p.grad.numpy() for p in model.parameters()]
        assert loss_of(model).dtype == np.float32
        return loss_of(model).item(), gradients, model.state_dict()

    loss, gradients, state = step(backend)
    expected_loss, expected_gradients, expected_state = step("numpy")
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    scale = max(np.abs(g).max() for g in expected_gradients)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale)
    for name, array in expected_state.items():
        np.testing.assert_allclose(state[name], array, rtol=0, atol=2e-3, err_msg=name)


def test_a_training_step_with_dropout_runs_on_every_backend(backend):
    model = make(dtype="float32", dropout=0.2).to(backend).train()
    before = model.state_dict()
    train(model, 1)
    assert all(np.isfinite(a).all() and not np.array_equal(a, before[n]) for n, a in model.state_dict().items())


def test_the_same_seed_gives_the_same_bytes_after_five_steps():
    def run(seed):
        tl.seed(seed)
        model = Transformer(dataclasses.replace(TINY, layers=2, dropout=0.3))
        optimizer = train(model, 5)
        return [a.tobytes() for a in [*model.state_dict().values(), *optimizer.state_dict().values()]]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_memory_returns_after_each_step_without_the_garbage_collector():
    model = make(dtype="float32", layers=2, dropout=0.1).train()
    optimizer = optim.Adam(model.named_parameters(), 1e-3)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()

    def arrays_and_objects():
        # Array memory only: Python's grows for a while, because it keeps some thousand freed tuples for reuse.
        only_arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([only_arrays]).traces
        return sum(trace.size for trace in traces), len(gc.get_objects())

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        steps(5)
        arrays, objects = arrays_and_objects()
        steps(30)
        arrays_later, objects_later = arrays_and_objects()
    finally:
        tracemalloc.stop()
        gc.enable()
    # One graph of this model that is not released is 10 kB of arrays and 2,000 objects.
    assert arrays_later - arrays < 1000
    assert objects_later - objects < 50


def test_a_forward_pass_without_a_backward_pass_is_freed_as_well():
    model = make(layers=2)
    gc.collect()
    gc.disable()
    try:
        model(SOURCE, TARGET)
        before = len(gc.get_objects())
        for _ in range(10):
            model(SOURCE, TARGET)
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()


def test_defaults_are_the_base_model_of_the_paper():
    c = TransformerConfig()
    assert (c.layers, c.width, c.heads, c.feed_forward, c.dropout, c.norm) == (6, 512, 8, 2048, 0.1, "post")


def dropped(model):
    """Return which ops drop elements of which shape, and with what probability."""
    with tl.record_formulas():
        logits = model(np.full((2, 5), 4), np.full((2, 3), 4))
    found, stack, seen = [], [logits.node], set()
    while stack:
        node = stack.pop()
        if isinstance(node, tl.Function) and id(node) not in seen:
            seen.add(id(node))
            p = node.pattern.p if node.name == "attention" else 1 - 1 / getattr(node, "scale", 1)
            p = getattr(node, "p", p)
            shape = node.output_types[0][0]
            if node.name == "attention":  # its weights
                shape = (*shape[:-1], node.input_types[1][0][-2])
            if p:
                found.append((node.name, shape, round(p, 4)))
            stack += [edge[0] for edge in node.edges if edge]
    return sorted(found)


def where_it_is_dropped(residual, embedding, attention, feed_forward):
    source, target = (2, 5, 8), (2, 3, 8)
    everywhere = [
        ("dropout", source, embedding), ("dropout", target, embedding),  # embeddings and positions
        ("attention", (2, 2, 5, 5), attention), ("attention", (2, 2, 3, 3), attention),
        ("attention", (2, 2, 3, 5), attention),
        ("linear_relu", (2, 5, 12), feed_forward), ("linear_relu", (2, 3, 12), feed_forward),
        *[("add_dropout", source, residual)] * 2, *[("add_dropout", target, residual)] * 3,
    ]  # fmt: skip
    return sorted(place for place in everywhere if place[2])


NARROW = TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=12, dropout=0.1)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_acts_where_the_paper_has_it(norm):
    model = Transformer(dataclasses.replace(NARROW, norm=norm))
    assert dropped(model) == where_it_is_dropped(0.1, 0.1, 0.1, 0.1)
    model.eval()
    assert not dropped(model)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("place", ["embedding", "attention", "feed_forward"])
def test_each_kind_of_dropout_acts_in_its_place_and_nowhere_else(place, p):
    rates = {"residual": 0.1, "embedding": 0.1, "attention": 0.1, "feed_forward": 0.1} | {place: p}
    model = Transformer(dataclasses.replace(NARROW, **{f"{place}_dropout": p}))
    assert dropped(model) == where_it_is_dropped(**rates)


def test_the_general_dropout_is_that_of_the_residuals():
    kinds = {"embedding_dropout": 0.2, "attention_dropout": 0.3, "feed_forward_dropout": 0.4}
    model = Transformer(dataclasses.replace(NARROW, dropout=0.0, **kinds))
    assert dropped(model) == where_it_is_dropped(0.0, 0.2, 0.3, 0.4)


@pytest.mark.parametrize("place", ["embedding", "attention", "feed_forward"])
def test_each_kind_of_dropout_is_a_probability(place):
    with pytest.raises(ValueError, match=rf"{place}_dropout must lie in \[0, 1\), got 1\.0"):
        Transformer(dataclasses.replace(NARROW, **{f"{place}_dropout": 1.0}))


def test_dropout_of_a_residual_follows_its_module():
    model = make(dropout=0.5).eval()
    quiet = model(SOURCE, TARGET).numpy()
    np.testing.assert_array_equal(model(SOURCE, TARGET).numpy(), quiet)
    model.encoder.layers[0].attention_residual.dropout.train()  # as for sampling the model's uncertainty
    assert np.abs(model(SOURCE, TARGET).numpy() - quiet).max() > 1e-3
