"""explain: why a gradient is None, zero, NaN, huge or fine, and the path that carries most of it."""

import pickle
import sys
import time

import numpy as np
import pytest

import nn
import tensorlib as tl
from models import Transformer, TransformerConfig
from tensorlib.debugging.zero_causes import percent


def leaf(values, backend="numpy", name="", **options):
    x = tl.Tensor(values, requires_grad=True, backend=backend, **options)
    x.name = name
    return x


def next_line(lines=1):
    """Return the line below the calling line, as messages show it."""
    return f"test_explain.py:{sys._getframe(1).f_lineno + lines}"


def assert_says(answer, verdict, *parts):
    text = str(answer)
    assert answer.verdict == verdict, text
    for part in parts:
        assert part in text, text


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


# ---- no gradient ------------------------------------------------------------------------------------------------


def test_cut_by_detach(backend):
    p, w = leaf([1.0, 2.0], backend, "encoder.weight"), leaf([3.0, 4.0], backend)
    with tl.debug():
        with tl.module_scope("decoder"):
            where = next_line()
            h = (p * 2.0).detach()
        loss = (h * w).sum()
    answer = tl.explain(p, loss)
    assert_says(answer, "none", "encoder.weight (2,) float32: it gets no gradient: cut by detach at ")
    assert str(answer).endswith(f"{where} (in decoder)")
    assert answer.norm is None and answer.path == [] and tl.explain(w, loss).verdict == "fine"


def no_grad_at(p, w):
    with tl.no_grad():
        h = p * 2.0
        h = h + 1.0
    return (h * w).sum()


CUTS = [
    (no_grad_at, "computed inside no_grad at "),
    (lambda p, w: (p.argmax() * w).sum(), "argmax at "),
    (lambda p, w: ((p > 0) * w).sum(), "greater at "),
    (lambda p, w: tl.where(p > 0, w, 0.0).sum(), "greater at "),  # the mask is an attribute, not an input
    (lambda p, w: tl.embedding(w, p.argmax().reshape(1)), "argmax at "),
    (lambda p, w: (p.astype("int32") * w).sum(), "astype(int32) at "),
    (lambda p, w: (tl.sign(p) * w).sum(), "sign at "),
    (lambda p, w: (tl.Tensor(p * 1.0) * w).sum(), "cut by Tensor(...) at "),
    (lambda p, w: ((p.detach() + 1.0) * 2.0 * w).sum(), "cut by detach at "),  # carried through ops without history
    (lambda p, w: ((p.detach() + (w > 0)) * w).sum(), "cut by detach at "),  # joined with another cut
    (lambda p, w: (tl.stack([p.detach(), p.detach()]) * w).sum(), "cut by detach at "),
    (lambda p, w: ((p.detach() * w).detach() * w).sum(), "cut by detach at "),
]


@pytest.mark.parametrize(("f", "reason"), CUTS, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(CUTS)])
def test_what_cuts_a_history_off(f, reason, backend):
    p, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend)
    with tl.debug():
        loss = f(p, w)
    answer = tl.explain(p, loss)
    assert_says(answer, "none", f"it gets no gradient: {reason}", "test_explain.py:")


def test_moved_to_another_backend():
    from tests.strict import STRICT

    p = leaf([1.0, 2.0])
    with tl.debug():
        loss = ((p * 2.0).to(STRICT) * leaf([1.0, 2.0], STRICT)).sum()
    assert_says(tl.explain(p, loss), "none", "cut by to at ")


def test_a_loss_computed_inside_no_grad_and_one_of_constants():
    p = leaf([1.0])
    with tl.debug(), tl.no_grad():
        loss = (p * 2.0).sum()
    assert_says(tl.explain(p, loss), "none", "computed inside no_grad at ")
    with tl.no_grad():
        loss = (p * 2.0).sum()
    assert_says(tl.explain(p, loss), "none", "the loss has no history", "inside no_grad")


def test_a_parameter_that_the_loss_does_not_use():
    p, w = leaf([1.0], name="bias"), leaf([2.0])
    with tl.debug():
        assert_says(tl.explain(p, (w * 2.0).sum()), "none", "no path: not used by this loss (or only its value")
    answer = tl.explain(p, (w * 2.0).sum())
    assert_says(answer, "none", "no path: not used by this loss, or cut off", "within tl.debug() and ask again")


def test_a_parameter_that_was_replaced():
    net = nn.Linear(2, 2)
    loss = net(tl.Tensor([[1.0, 2.0]])).sum()
    old = net.weight
    net.weight = nn.Parameter(np.ones((2, 2), "float32"))
    assert_says(
        tl.explain(net.weight, loss),
        "none",
        "another Tensor called weight is in the graph: the module's Tensor was replaced",
    )
    assert tl.explain(old, loss).verdict == "fine"


def test_a_value_used_as_a_constant_is_seen_without_debug(backend):
    p, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend)
    loss = (p.detach() * w).sum()
    assert_says(tl.explain(p, loss), "none", "multiply uses its value as a constant: it was detached")


def test_constants():
    p = leaf([1.0])
    loss = (p * 1.0).sum()
    assert_says(tl.explain(tl.Tensor([1.0]), loss), "none", "it does not require one: set requires_grad=True before")
    assert_says(tl.explain(tl.Tensor([1]), loss), "none", "it is of dtype int64")
    with tl.debug():
        constant = (p * 2.0).detach()
    assert_says(tl.explain(constant, loss), "none", "it is a constant: cut by detach at ")


def test_an_op_that_gives_none():
    class Deaf(tl.Function):
        def forward(self, x):
            return x * 2

        def backward(self, dy):
            return None

    p = leaf([1.0])
    loss = Deaf.apply(tl.exp(p)).sum()
    assert_says(tl.explain(p, loss), "none", "the backward of deaf returns None for it")


def test_a_part_that_is_cut_off_is_noted():
    p = leaf([1.0, 2.0])
    with tl.debug():
        loss = (p + (p * 2.0).detach()).sum()
    assert_says(tl.explain(p, loss), "fine", "note: part of its use is cut off: cut by detach at ")


def test_a_cut_by_an_op_itself_is_not_noted():
    p = leaf([0.5, 2.0])
    with tl.debug():
        loss = (tl.hardtanh(p) + tl.where(p > 0, p, 0.0)).sum()
    assert tl.explain(p, loss).notes == []


# ---- zero -------------------------------------------------------------------------------------------------------

MASK = np.array([[True, False], [True, False]])
HALF = np.array([[0.5, 0.5], [0.5, 0.5]], "float32")

ZEROS = [
    (lambda p: tl.relu(p - 9.0), "zeroed by relu at ", "100 % of units dead"),
    (lambda p: p * tl.zeros((2, 2), backend=p.backend), "zeroed by multiply at ", "other factor, input 1, is all zero"),
    (lambda p: p * 0.0, "zeroed by multiply at ", "the other factor, the number, is all zero"),
    (lambda p: p @ tl.relu(p.detach() - 9.0), "zeroed by matmul at ", "the other factor, input 1, is all zero"),
    (
        lambda p: p @ leaf(HALF * 0, p.backend, "gate.weight"),
        "zeroed by matmul at ",
        "factor, gate.weight, is all zero",
    ),
    (lambda p: tl.maximum(p, 9.0), "zeroed by maximum at ", "the other input is larger at 100 % of the positions"),
    (lambda p: tl.minimum(p, -9.0), "zeroed by minimum at ", "the other input is smaller at 100 % of the positions"),
    (lambda p: tl.clip(p, 5.0, 9.0), "zeroed by clip at ", "100 % of the values are outside its bounds"),
    (lambda p: tl.masked_fill(p, p < 9, 0.0), "zeroed by where at ", "selects this input at 0 % of the positions"),
    (lambda p: tl.softmax(p), "zeroed by softmax at ", "the same for all classes, and probabilities sum to 1"),
    (lambda p: tl.softmax(p * 1000.0)[:, 0], "zeroed by softmax at ", "saturated: its largest output is 1 in 100 %"),
    (lambda p: tl.sigmoid(p + 500.0), "zeroed by sigmoid at ", "100 % of its outputs are exactly at their limits"),
    (lambda p: tl.tanh(p - 500.0), "zeroed by tanh at ", "saturated: 100 % of its outputs"),
    (lambda p: tl.square(p * 0.0 + (p - p)), "zeroed by square at ", "its input is 0 at 100 % of the positions"),
    (lambda p: p**0, "zeroed by power at ", "the exponent is 0"),
    (lambda p: tl.dropout(p, 0.999, tl.Generator(1)), "zeroed by dropout at ", "with probability 0.999"),
    (lambda p: p[:0], "zeroed by sum at ", "its input has no elements"),
    (lambda p: tl.cross_entropy(p, [-100, -100]), "zeroed by cross_entropy at ", "every target is ignored"),
    (lambda p: (p * 1e-30) * 1e-30, "zeroed by multiply at ", "it underflows"),
]


@pytest.mark.parametrize(("f", "op", "why"), ZEROS, ids=[f"{i}-{why}" for i, (_, _, why) in enumerate(ZEROS)])
def test_what_zeroes_a_gradient(f, op, why, backend):
    p = leaf(HALF + np.array([[1, 0], [0, 1]], "float32"), backend)
    with tl.debug():
        loss = f(p).sum()
    answer = tl.explain(p, loss)
    assert_says(answer, "zero", f"this Tensor (2, 2) float32: its gradient is zero: {op}", why)
    assert answer.norm == 0 and answer.zeros == 1 and answer.path[-1].after == 0


def test_contributions_that_cancel_each_other_out():
    p = leaf([1.0, 2.0], name="w")
    with tl.debug():
        h = p * 2.0
        loss = (h - h).sum()
    assert_says(tl.explain(h, loss), "zero", "the contributions to the gradient of this Tensor cancel each other out")
    assert_says(tl.explain(p, loss), "zero", "the contributions to the gradient of multiply at ", "cancel each other")


def test_a_dead_relu_is_found_through_the_ops_after_it():
    net = nn.FeedForward(4, 6)
    net.hidden.bias.replace(np.full(6, -100, "float32"))
    with tl.debug():
        loss = net(tl.Tensor(random(5, 4))).sum()
    answer = tl.explain(net.hidden.weight, loss)
    assert_says(answer, "zero", "hidden.weight (4, 6) float32: its gradient is zero: zeroed by linear_relu at ")
    assert "100 % of units dead" in answer.reasons[0]
    assert [step.op for step in answer.path] == ["sum", "linear", "linear_relu"]
    assert [step.after > 0 for step in answer.path] == [True, True, False]
    assert answer.path[-1].module == "hidden" and "test_explain.py" in answer.path[-1].source
    last = tl.explain(net.output.weight, loss)
    assert "zeroed by linear" in str(last) and "the other factor, the output of linear_relu at" in str(last)


def test_the_sub_layers_that_are_one_op_are_explained_too():
    net = nn.FeedForward(4, 6)
    net.hidden.bias.replace(np.full(6, -100, "float32"))
    answer = tl.explain(net.hidden.weight, net(tl.Tensor(random(5, 4))).sum())
    assert_says(answer, "zero", "zeroed by feed_forward: 100 % of units dead")
    x, attention = tl.Tensor(random(2, 3, 4), requires_grad=True), nn.MultiHeadAttention(4, 2)
    hidden = attention(x, visible=np.zeros((1, 1, 1, 3), bool))
    assert_says(tl.explain(x, hidden.sum()), "zero", "self_attention: 100 % of the queries see nothing")


def test_equal_reasons_are_counted_and_long_lists_are_cut():
    p = leaf(random(3, 3) * 0 + 1)
    with tl.debug():
        line = [tl.relu(p - 9.0).sum() for _ in range(4)]
        other = tl.tanh(p + 500.0).sum() + (p * 0.0).sum() + tl.sigmoid(p + 500.0).sum()
    answer = tl.explain(p, line[0] + line[1] + line[2] + line[3] + other)
    assert any("100 % of units dead (4 times)" in reason for reason in answer.reasons)
    assert len(answer.reasons) == 4 and "and 1 more reason" in str(answer)
    early, late = tl.relu(p - 9.0), leaf(np.zeros((3, 3), "float32"))
    answer = tl.explain(p, (early + (p + 1.0) * late * 1.0).sum())
    assert [reason.split(" at")[0].split(":")[0] for reason in answer.reasons] == [
        "zeroed by multiply",
        "zeroed by relu",
    ]


def test_a_gradient_that_is_partly_zero(backend):
    x = random(50, 4)
    bias = np.where(np.arange(100) < 97, -1000, 1000).astype("float32")
    w = leaf(random(4, 100), backend, "hidden.weight")
    with tl.debug():
        loss = tl.relu(tl.Tensor(x, backend=backend) @ w + tl.Tensor(bias, backend=backend)).sum()
    answer = tl.explain(w, loss)
    assert_says(answer, "fine", "97 % of its elements are zero: relu at ", "lets 3 % through (97 % of units dead)")
    assert answer.zeros == pytest.approx(0.97)


def test_rows_of_an_embedding_that_no_id_selects(backend):
    table = leaf(random(10, 3), backend, "embedding.weight")
    answer = tl.explain(table, tl.embedding(table, [[1, 1], [4, 7]]).sum())
    assert_says(answer, "fine", "70 % of its elements are zero: embedding lets 30 % through")
    assert_says(answer, "fine", "no id selects 7 of its 10 rows")


# ---- NaN, Inf, huge, tiny ---------------------------------------------------------------------------------------


def test_nan_and_inf_are_traced_to_the_op_that_computed_them(backend):
    p = leaf([0.0, 4.0], backend, "scale")
    with tl.debug():
        loss = (tl.where(p > 0, tl.sqrt(p), 0.0) * 2.0).sum()
    answer = tl.explain(p, loss)
    assert_says(answer, "nan", "its gradient holds NaN: sqrt: backward: the gradient of input 0 (scale) must be finite")
    assert_says(answer, "nan", "dy is (2,) float32 in [0, 2]", "0 · Inf is NaN")
    assert_says(tl.explain(p, tl.sqrt(p * 1.0).sum()), "inf", "holds Inf: sqrt: backward", "the output was")


def test_a_sum_of_gradients_that_overflows():
    p = leaf([0.1])
    loss = (p * 3e38 + p * 3e38).sum()
    assert_says(tl.explain(p, loss), "inf", "the sum of the contributions to the gradient of this Tensor is not finite")


def test_huge_by_one_step_and_by_many(backend):
    p = leaf([1.0, 2.0], backend)
    with tl.debug():
        line = next_line()
        y = p * 2.0 * 1e6
        loss = (y * 3.0).sum()
    assert_says(tl.explain(p, loss), "huge", "it grows most at multiply at ", f"{line}, by a factor of 1e+06")
    y = p
    for _ in range(20):
        y = y * 10.0
    answer = tl.explain(p, y.sum())
    assert_says(answer, "huge", "no single step dominates: the 20 multiply ops", "by 1e+20 in total, by 10 each")


def test_tiny(backend):
    p = leaf([1.0, 2.0], backend)
    y = p
    for _ in range(20):
        y = tl.sigmoid(y)
    answer = tl.explain(p, y.sum())
    assert_says(answer, "tiny", "no single step dominates: the 20 sigmoid ops on the path multiply it by ")
    assert answer.norm < 1e-7


# ---- the path ---------------------------------------------------------------------------------------------------


def test_shares_where_paths_join(backend):
    p = leaf([1.0, 1.0], backend)
    with tl.module_scope("decoder.layers.1.cross_attention"):
        a = p * 3.0
    with tl.module_scope("decoder.layers.1.residual"):
        b = p * 2.0
    answer = tl.explain(p, (a + b).sum())
    ((what, parts),) = answer.shares
    assert what == "its gradient"
    assert parts == [
        (pytest.approx(0.6), "decoder.layers.1.cross_attention"), (pytest.approx(0.4), "decoder.layers.1.residual")
    ]  # fmt: skip
    assert "its gradient comes 60 % through decoder.layers.1.cross_attention, 40 % through" in str(answer)
    assert [(step.op, step.after) for step in answer.path] == [
        ("sum", pytest.approx(2**0.5)), ("add", pytest.approx(2**0.5)), ("multiply", pytest.approx(3 * 2**0.5))
    ]  # fmt: skip


def test_the_path_takes_the_output_through_which_most_comes():
    p = leaf([[1.0, 1.0]])
    few, most = tl.split(p, 2, axis=1)
    answer = tl.explain(p, tl.exp(few * 0.1).sum() + tl.tanh(most - 1.0).sum() * 5.0)
    assert [step.op for step in answer.path] == ["add", "multiply", "sum", "tanh", "subtract", "split"]


def transformer():
    tl.seed(0)
    size = {"source_vocabulary": 11, "target_vocabulary": 11, "layers": 2, "width": 8, "heads": 2, "feed_forward": 8}
    return Transformer(TransformerConfig(**size, dropout=0.0)), np.arange(6).reshape(2, 3) + 4


def test_in_the_transformer_every_parameter_has_a_short_answer():
    model, ids = transformer()
    with tl.debug():
        loss = tl.cross_entropy(model(ids, ids), ids)
    loss.backward(retain_graph=True)
    for name, p in model.named_parameters():
        answer = tl.explain(p, loss)
        assert answer.verdict == "fine" and answer.name == name
        np.testing.assert_allclose(answer.norm, np.linalg.norm(p.grad.numpy()), rtol=1e-5)
        assert len(str(answer).splitlines()) <= 1 + 1 + 12 + 3
        assert answer.path[-1].module == name.rpartition(".")[0] or "projection" in name
    text = str(tl.explain(model.encoder.layers[0].feed_forward.hidden.weight, loss))
    assert "encoder.layers.0.feed_forward" in text and "models/architectures/transformer.py:" in text


def test_in_the_transformer_a_detach_and_a_dead_unit_are_found():
    model, ids = transformer()
    with tl.debug():
        memory = model.encode(ids)
        with tl.module_scope("decoder.layers.1.cross_attention"):
            memory = memory.detach()
        loss = tl.cross_entropy(model.decode(ids, memory), ids)
    answer = tl.explain(model.encoder.layers[1].feed_forward.output.weight, loss)
    assert_says(answer, "none", "cut by detach at ", "(in decoder.layers.1.cross_attention)")
    model.decoder.layers[0].feed_forward.hidden.bias.replace(np.full(8, -1000, "float32"))
    with tl.debug():
        loss = tl.cross_entropy(model(ids, ids), ids)
    answer = tl.explain(model.decoder.layers[0].feed_forward.hidden.weight, loss)
    where = "(in decoder.layers.0.feed_forward.hidden)"
    assert_says(answer, "zero", "zeroed by linear_relu at ", f"{where}: 100 % of units dead")


def test_a_checkpoint_is_opened():
    p = leaf(random(3, 3))
    with tl.debug():
        loss = tl.checkpoint(lambda x: tl.relu(x - 100.0) * 2.0, p).sum()
    assert_says(tl.explain(p, loss), "zero", "zeroed by relu at ", "100 % of units dead")


def test_a_long_chain_takes_linear_time_and_few_lines():
    p = leaf([1.0])
    y = p
    for _ in range(5_000):
        y = y + 1.0
    started = time.perf_counter()
    answer = tl.explain(p, y)
    assert time.perf_counter() - started < 20
    assert len(answer.path) == 5_000 and len(str(answer).splitlines()) <= 14
    assert "add x4,990 (4,990 ops)" in str(answer)


def test_a_tensor_that_is_not_a_leaf_and_the_loss_itself():
    p = leaf([1.0, 2.0])
    h = p * 2.0
    loss = (h * 3.0).sum()
    answer = tl.explain(h, loss)
    assert_says(answer, "fine", "note: it is not a leaf, so backward() leaves its .grad None unless retain_grad()")
    assert answer.norm == pytest.approx(3 * 2**0.5)
    assert tl.explain(loss, loss).norm == 1


# ---- it changes nothing -----------------------------------------------------------------------------------------


def test_it_changes_nothing_and_calls_no_hooks(backend):
    p = leaf([1.0, 2.0], backend, "w")
    calls = []
    h = p * 2.0
    h.register_hook(lambda dx: calls.append("h"))
    p.register_hook(lambda dx: calls.append("p"))
    h.retain_grad()
    loss = (h * h).sum()
    for _ in range(2):
        answer = tl.explain(p, loss)
    assert calls == [] and p.grad is None and h.grad is None
    assert "note: hooks, which may change gradients, are not called here: on multiply, w" in str(answer)
    loss.backward()
    assert calls == ["h", "p"]
    np.testing.assert_array_equal(p.grad.numpy(), [8, 16])


def test_inside_no_grad_and_inside_debug():
    p = leaf([0.0])
    loss = tl.sqrt(p * 1.0).sum()
    with tl.debug(), tl.no_grad():
        assert tl.explain(p, loss).verdict == "inf"  # an answer, not an error


def test_an_answer_may_be_kept():
    p = leaf([1.0, 2.0])
    answer = tl.explain(p, (p * p).sum())
    again = pickle.loads(pickle.dumps(answer))
    assert str(again) == str(answer) == repr(answer)


BAD = [
    (lambda p, loss: tl.explain("w", loss), TypeError, "the parameter must be a Tensor, got str"),
    (lambda p, loss: tl.explain(p, 3.0), TypeError, "the loss must be a Tensor, got float"),
    (lambda p, loss: tl.explain(p, None), TypeError, "the loss must be a Tensor, got NoneType"),
    (lambda p, loss: tl.explain(loss, p), ValueError, r"must be a scalar, got shape \(2,\); call explain"),
    (lambda p, loss: (loss.backward(), tl.explain(p, loss)), RuntimeError, "behind sum was released.*before b"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[message for _, _, message in BAD])
def test_misuse(call, error, message):
    p = leaf([1.0, 2.0])
    with pytest.raises(error, match=f"^explain: .*{message}"):
        call(p, (p * p).sum())


def test_percent():
    assert [percent(x) for x in (0, 1, 0.97, 0.5, 0.999, 0.9999, 0.0001, 1 / 3)] == [
        "0 %", "100 %", "97 %", "50 %", "99.9 %", "over 99.9 %", "under 0.1 %", "33 %"
    ]  # fmt: skip


def test_ignored_targets_and_queries_that_see_nothing_are_named():
    x, w = leaf(np.ones((3, 4), "float32")), tl.ones((4, 5))
    with tl.debug():
        loss = tl.linear_cross_entropy(x, w, None, np.zeros(3, int), ignore_index=0)
        y = tl.scaled_dot_product_attention(x, x, x, visible=tl.Tensor(np.zeros((3, 3), bool))).sum()
    assert_says(tl.explain(x, loss), "zero", "every target is ignored")
    assert_says(tl.explain(x, y), "zero", "100 % of the queries see nothing")
