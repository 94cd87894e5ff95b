"""The decoding state whose rows find keys and values by index: when it is used, and what its steps share and copy."""

from contextlib import nullcontext

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from models.architectures import indexed_state
from models.architectures.decoder_state import DecoderState
from models.architectures.indexed_state import IndexedState
from models.text.tokens import BOS, EOS, PAD
from tensorlib.kernels import chosen

SOURCE = np.array([[4, 5, 6, EOS], [6, EOS, PAD, PAD]])
compiled = pytest.mark.skipif(chosen() != "numba", reason="needs compiled kernels")


@pytest.fixture(autouse=True)
def for_a_few_sources(monkeypatch):
    monkeypatch.setattr(indexed_state, "FEWEST_SOURCES", 2)


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


def with_other_attention():
    model = make()
    model.decoder.layers[1].cross_attention = OtherAttention(8, 2).astype("float64").eval()
    return model


def with_hook():
    model = make()
    model.decoder.layers[0].feed_forward.register_forward_hook(lambda module, args, output: output * 2)
    return model


def without_bias():
    model = make()
    model.decoder.layers[0].attention.output.bias = None
    return model


OTHERS = {
    "float16": lambda: make(dtype="float16"),
    "a hook": with_hook,
    "another attention": with_other_attention,
    "another class": lambda: make(Louder),
    "no bias": without_bias,
    "rotary": lambda: make(positions="rotary"),
    "training": lambda: make(dropout=0.0).train(),
}


@compiled
@pytest.mark.parametrize("name", OTHERS)
def test_a_model_that_computes_something_else_takes_its_own_steps(name):
    model, targets = OTHERS[name](), [[BOS, 5, 4], [BOS, 6, 6]]
    with tl.no_grad():
        steps, state = logits_of(model, targets)
        whole = model(SOURCE, targets).numpy().swapaxes(0, 1)
    assert isinstance(state, DecoderState)
    np.testing.assert_allclose(steps, whole, rtol=0, atol=2e-2 if name == "float16" else 1e-10)


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
    monkeypatch.setattr(indexed_state, "chosen", lambda: "numpy")
    with tl.no_grad():
        assert isinstance(started(make()), DecoderState)


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
    assert picked.kept is state.kept and picked.memory is state.memory  # only indices are copied


@compiled
def test_states_that_continue_one_state_do_not_write_over_each_other():
    model = make()
    with tl.no_grad():
        _, state = logits_of(model, [[BOS], [BOS]])
        first, one = logits_of(model, [[4], [5]], state)
        second, two = logits_of(model, [[6], [7]], state)
        again, three = logits_of(model, [[4], [5]], state)
    assert one.kept is state.kept and two.kept is not one.kept and three.kept is not two.kept
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


@compiled
def test_the_state_keeps_the_weights_that_it_started_with():
    model = make()
    with tl.no_grad():
        state = started(model)
        expected, _ = logits_of(model, [[BOS], [BOS]], state)
        model.decoder.layers[0].attention.projection.weight.data[:] = 0
        found, _ = logits_of(model, [[BOS], [BOS]], state)
        changed, _ = logits_of(model, [[BOS], [BOS]])
    np.testing.assert_array_equal(found, expected)
    assert (changed != expected).any()


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
