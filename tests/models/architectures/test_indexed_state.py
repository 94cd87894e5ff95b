"""The decoding state whose rows find keys and values by index: when it is used, and what its steps share and copy."""

from contextlib import nullcontext
from functools import singledispatch

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from models.architectures import prepared
from models.architectures.decoder_state import DecoderState
from models.architectures.indexed_state import IndexedState
from models.text.tokens import BOS, EOS, PAD
from tensorlib.kernels import chosen

SOURCE = np.array([[4, 5, 6, EOS], [6, EOS, PAD, PAD]])
compiled = pytest.mark.skipif(chosen() != "numba", reason="needs compiled kernels")


@pytest.fixture(autouse=True)
def for_a_few_sources(monkeypatch):
    monkeypatch.setattr(prepared, "FEWEST_SOURCES", 2)


def make(kind=Transformer, dtype="float64", **changes):
    options = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 16, "dropout": 0.1} | changes
    return kind(TransformerConfig(9, 9, **options), tl.Generator(3)).astype(dtype).eval()


def started(model):
    visible = model.visible(SOURCE)
    return model.start(model.encode(SOURCE, visible), visible)


def logits_of(model, targets, state=None):
    """Decode step by step; return the logits of every position, and the last state."""
    state, logits = started(model) if state is None else state, []
    for ids in np.transpose(targets):
        step, state = model.decode_step(ids, state)
        logits.append(step.numpy())
    return np.array(logits), state


# ---- when it is used ----


class Louder(Transformer):
    def logits(self, x_BTD):
        return super().logits(x_BTD) * 2


class OtherAttention(nn.MultiHeadAttention):
    def attend(self, *args, **options):
        return super().attend(*args, **options) * 2


class OtherPositions(nn.SinusoidalPositions):
    def forward(self, x_BTD, start=0):
        return super().forward(x_BTD, start) * 2


def with_part(name, part):
    """Return a model one of whose modules is replaced."""
    model = make()
    *path, last = name.split(".")
    owner = model
    for step in path:
        owner = owner[int(step)] if step.isdigit() else getattr(owner, step)
    setattr(owner, last, part)
    for p in part.parameters():
        p.replace(tl.normal(p.shape, generator=tl.Generator(1)).numpy())
    return model.astype("float64").eval()


def with_hook(name):
    model = make()
    modules = {
        "hidden": model.decoder.layers[0].feed_forward.hidden, "output": model.output,
        "positions": model.target_positions, "embedding": model.target_embedding,
    }  # fmt: skip
    modules[name].register_forward_hook(lambda module, args, output: output * 2)
    return model


def with_some_weights_in_float32():
    model = make()
    model.target_embedding.weight.replace(model.target_embedding.weight.numpy().astype("float32"))
    return model


OTHERS = {
    "another attention": lambda: with_part("decoder.layers.1.cross_attention", OtherAttention(8, 2)),
    "another class": lambda: make(Louder),
    "another number of heads": lambda: with_part("decoder.layers.1.cross_attention", nn.MultiHeadAttention(8, 4)),
    "bias of the output": lambda: with_part("output", nn.Linear(8, 9)),
    "float16": lambda: make(dtype="float16"),
    "hook of the embedding": lambda: with_hook("embedding"),
    "hook of a hidden layer": lambda: with_hook("hidden"),
    "hook of the output": lambda: with_hook("output"),
    "hook of the positions": lambda: with_hook("positions"),
    "no bias": lambda: with_part("decoder.layers.0.attention.output", nn.Linear(8, 8, bias=False)),
    "other positions": lambda: with_part("target_positions", OtherPositions(8)),
    "rotary": lambda: make(positions="rotary"),
    "training": lambda: make(dropout=0.0).train(),
    "two dtypes": with_some_weights_in_float32,
}


@compiled
@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_computes_something_else_takes_its_own_steps(name):
    model, targets = OTHERS[name](), [[BOS, 5, 4], [BOS, 6, 6]]
    with tl.no_grad():
        steps, state = logits_of(model, targets)
        whole = model(SOURCE, targets).numpy().swapaxes(0, 1)
    assert isinstance(state, DecoderState)
    rough = name in ("float16", "two dtypes")
    np.testing.assert_allclose(steps, whole, rtol=0, atol=2e-2 if rough else 1e-10)


@compiled
def test_a_method_of_a_module_of_its_own_is_called():
    model, calls = make(), []
    step = model.decoder.layers[1].step
    model.decoder.layers[1].step = lambda *arguments: calls.append(1) or step(*arguments)
    with tl.no_grad():
        logits_of(model, [[BOS, 5], [BOS, 6]])
    assert len(calls) == 2


@compiled
def test_dropout_that_acts_on_the_embedding_acts_in_steps():
    model = make()
    model.dropout.train()
    with tl.no_grad():
        assert isinstance(started(model), DecoderState)


@compiled
def test_every_op_is_called_where_a_gradient_or_a_record_of_every_op_is_wanted():
    model = make()
    assert isinstance(started(model), DecoderState)
    with tl.no_grad():
        assert isinstance(started(model), IndexedState)
        with tl.record_formulas():
            assert isinstance(started(model), DecoderState)


@compiled
def test_a_recorded_step_may_continue_a_state_that_is_not():
    model, begun, after = make(), [[BOS, 5], [BOS, 6]], [[4, 7], [8, 4]]
    with tl.no_grad():
        _, state = logits_of(model, begun)
        expected, _ = logits_of(model, after, state)
    found, recorded = logits_of(model, after, state)
    assert isinstance(recorded, DecoderState)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    model.decode_step([4, 4], started(model).select([1, 0]))[0].sum().backward()
    assert model.output.weight.grad is not None


def test_one_sentence_does_not_wait_for_the_compiler():
    model = make()
    with tl.no_grad():
        assert isinstance(model.start(model.encode(SOURCE[:1])), DecoderState)


def test_without_compiled_kernels_modules_take_the_steps(monkeypatch):
    monkeypatch.setattr(prepared, "decoder_step", singledispatch(lambda *arguments: None))
    with tl.no_grad():
        assert isinstance(started(make()), DecoderState)


def masks(visible_BS):
    yield visible_BS, IndexedState
    yield visible_BS.reshape(2, 1, 1, 4), IndexedState
    yield None, IndexedState
    yield visible_BS[:1].reshape(1, 1, 1, 4), DecoderState


@compiled
def test_masks_of_every_shape_hide_what_modules_hide():
    model = make()
    with tl.no_grad():
        memory = model.encode(SOURCE)
        for visible, kind in masks(model.visible(SOURCE)):
            expected = model.decode([[BOS, 5], [BOS, 6]], memory, visible).numpy()[:, -1]
            state = model.start(memory, visible)
            assert isinstance(state, kind)
            found, _ = logits_of(model, [[BOS, 5], [BOS, 6]], state)
            np.testing.assert_allclose(found[-1], expected, rtol=0, atol=1e-12)
        for wrong in (model.visible(SOURCE).swapaxes(0, 1), tl.ones((2, 3), dtype=bool)):
            with pytest.raises(ValueError, match=r"mask|visible"):
                model.decode_step([BOS, BOS], model.start(memory, wrong))


# ---- what its steps share and copy ----


@compiled
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_selected_rows_continue_as_if_decoded_from_the_beginning(norm, dtype):
    model = make(norm=norm, dtype=dtype)
    with tl.no_grad():
        _, state = logits_of(model, [[BOS, 5, 4], [BOS, 6, 6]])
        rows = np.array([1, 0, 0, 1, 1])
        picked = state.select(rows)
        found, _ = logits_of(model, np.array([[7, 4], [5, 5], [6, 8], [7, 7], [4, 4]]), picked)
        whole = model(SOURCE[rows], [[BOS, 6, 6, 7, 4], [BOS, 5, 4, 5, 5], [BOS, 5, 4, 6, 8], [BOS, 6, 6, 7, 7],
                                     [BOS, 6, 6, 4, 4]]).numpy()[:, 3:]  # fmt: skip
    np.testing.assert_allclose(found.swapaxes(0, 1), whole, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)
    assert picked.buffer is state.buffer and picked.memory_BSE is state.memory_BSE  # only indices are copied


@compiled
def test_states_that_continue_one_state_do_not_write_over_each_other():
    model = make()
    with tl.no_grad():
        _, state = logits_of(model, [[BOS], [BOS]])
        first, one = logits_of(model, [[4], [5]], state)
        second, two = logits_of(model, [[6], [7]], state)
        again, three = logits_of(model, [[4], [5]], state)
    assert one.buffer is state.buffer and two.buffer is not one.buffer and three.buffer is not two.buffer
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


CHANGES = {
    "debugging": lambda model: tl.debug(),
    "hook": lambda model: model.decoder.layers[0].feed_forward.register_forward_hook(lambda m, a, y: y * 2),
    "weight": lambda model: nullcontext(model.decoder.layers[0].attention.projection.bias.replace(np.ones(24))),
}


@compiled
@pytest.mark.parametrize("name", CHANGES)
def test_decoding_continues_by_modules_after_a_change(name):
    model, after = make(), [[4, 7], [8, 4]]
    with tl.no_grad():
        _, state = logits_of(model, [[BOS, 5], [BOS, 6]])
        by_modules = state.as_tensors()
        with CHANGES[name](model):
            found, last = logits_of(model, after, state)
            expected, _ = logits_of(model, after, by_modules)
    assert isinstance(state, IndexedState) and isinstance(last, DecoderState)
    np.testing.assert_array_equal(found, expected)


@compiled
def test_a_state_of_no_rows_has_no_logits():
    model = make()
    with tl.no_grad():
        _, state = logits_of(model, [[BOS], [BOS]])
        logits, after = model.decode_step(np.array([], int), state.select(np.zeros(2, bool)))
    assert logits.shape == (0, 9) and after.rows == 0 and after.as_tensors().own[0].keys.shape == (0, 2, 2, 4)


@compiled
def test_rows_that_were_dropped_give_back_their_memory():
    model = make()
    with tl.no_grad():
        state = started(model).select(np.zeros(100, int))
        _, state = model.decode_step([BOS] * 100, state)
        _, state = logits_of(model, [[4] * 40], state.select([7]))
    assert state.buffer.arrays[0].shape[1] == 1


@compiled
@pytest.mark.parametrize("threads", [1, 2, 8])
def test_the_bits_of_a_row_depend_neither_on_threads_nor_on_other_rows(threads):
    model = make(dtype="float32")
    source = np.tile(SOURCE, (40, 1))
    with tl.no_grad(), tl.threads(threads) if threads > 1 else nullcontext():
        visible = model.visible(source)
        memory = tl.Tensor(np.tile(model.encode(SOURCE, visible[:2]).numpy(), (40, 1, 1)))
        many, _ = model.decode_step([BOS, 5] * 40, model.start(memory, visible))
        few, _ = model.decode_step([BOS, 5], model.start(memory[:2], visible[:2]))
    np.testing.assert_array_equal(many.numpy(), np.tile(few.numpy(), (40, 1)))
