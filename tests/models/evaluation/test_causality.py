"""The proof of causality: it holds for the shipped models, and each of eight planted leaks is found and placed."""

import inspect
import re

import numpy as np
import pytest

import models
import nn
import tensorlib as tl
from models.architectures import transformer
from models.architectures.build import build_model
from models.architectures.decoder_state import KeyValueCache
from models.architectures.language import LanguageConfig
from models.architectures.recurrent import RecurrentConfig
from models.architectures.transformer import TransformerConfig
from models.evaluation import causality
from models.evaluation.causality import SmallText, prove
from models.system.errors import UserError
from models.text import batching

SIZES = {"layers": 2, "width": 8, "heads": 2, "feed_forward": 12, "dropout": 0.1, "max_length": 16}
TRANSFORMER = TransformerConfig(32, 32, **SIZES)


def model_of(config):
    return build_model(config, tl.Generator(0))


def failures(config=TRANSFORMER):
    """Return the complaints about a model, by the way of computing logits."""
    return {report.way: report.failures for report in prove(model_of(config))}


@pytest.mark.parametrize(
    "config",
    [TransformerConfig(32, 32, **SIZES, norm=norm, positions=positions)
     for norm, positions in [("post", "sinusoidal"), ("pre", "rotary"), ("pre", "learned"), ("post", "none")]]
    + [TransformerConfig(32, 32, **SIZES, tie_embeddings=True)]
    + [LanguageConfig(32, **SIZES), LanguageConfig(32, **SIZES, norm="post", positions="learned")]
    + [RecurrentConfig(32, 32, kind=kind, attention=attention, width=8)
       for kind, attention in [("rnn", "none"), ("gru", "additive"), ("lstm", "dot")]],
    ids=str,
)  # fmt: skip
def test_the_shipped_models_are_proved(config):
    reports = list(prove(model_of(config)))
    assert len(reports) == (6 if config.kind == "language" else 3)
    assert all(report.pairs > 300 and not report.failures for report in reports), reports


def test_a_logit_depends_on_all_that_it_may_see():
    """Otherwise a rule that lost dependence would prove everything."""
    model = model_of(TRANSFORMER)
    text = SmallText.of(model)
    recorder = causality.Recorder(text)
    with recorder.watching(model):
        logits_BTV = model(text.source_BS, text.batch.target_in_BT)
    found = tl.depends(logits_BTV, [r.output for r in recorder.reads], axes=(0, 1), axes_of_y=(0, 1))
    for read, dependence in zip(recorder.reads, found, strict=True):
        for b, t in np.ndindex(logits_BTV.shape[:2]):
            if text.predicted(b, t) is not None:
                may = [[token.hidden_from(b, text.predicted(b, t)) is None for token in row] for row in read.tokens]
                np.testing.assert_array_equal(dependence[b, t], may)


# ---- eight leaks ---------------------------------------------------------------------------------------------------


def line_of(function, text):
    """Return "file.py:12" for the line of a function that contains a text."""
    lines, first = inspect.getsourcelines(function)
    [number] = [first + i for i, line in enumerate(lines) if text in line]
    return f"{inspect.getsourcefile(function).rpartition('/')[2]}:{number}"


def complaint(found, way, kind, op, module, line=None):
    """Check that there is a complaint of a kind that names an op, a module and, if given, a line; return it."""
    of_kind = [text for text in found[way] if f"depend on {kind} (" in text]
    assert of_kind, found
    match = re.search(rf"by {op} in {re.escape(module)}(\S*) at (\S+)", of_kind[0])
    assert match, of_kind
    assert line is None or match[2].endswith(line), (match[2], line)
    return of_kind[0]


def plant_in_self_attention(monkeypatch, attend):
    """Replace causal self-attention of the decoder by ``attend(attention, x)``."""

    def forward(self, x_BTD, memory_BSD, visible):
        x_BTD = self.attention_residual(x_BTD, lambda x: attend(self.attention, x))
        x_BTD = self.cross_attention_residual(x_BTD, self.cross_attention, memory_BSD, visible)
        return self.feed_forward_residual(x_BTD, self.feed_forward)

    monkeypatch.setattr(transformer.DecoderLayer, "forward", forward)


def test_a_mask_that_is_off_by_one(monkeypatch):
    def off_by_one(attention, x_BTD):
        return attention(x_BTD, visible=np.tri(x_BTD.shape[1], k=1, dtype=bool))

    plant_in_self_attention(monkeypatch, off_by_one)
    found = failures()
    for way in ("training", "evaluation"):
        complaint(found, way, "a later token", "attention", "decoder.layers.0.attention", line_of(off_by_one, "tri"))
    assert not found["token by token"]


def test_a_mask_of_the_wrong_polarity(monkeypatch):
    def upside_down(attention, x_BTD):
        return attention(x_BTD, visible=~np.tri(x_BTD.shape[1], k=-1, dtype=bool))

    plant_in_self_attention(monkeypatch, upside_down)
    complaint(
        failures(), "training", "a later token", "attention", "decoder.layers.0.attention", line_of(upside_down, "tri")
    )


def test_padding_of_the_wrong_polarity(monkeypatch):
    monkeypatch.setattr(models.Transformer, "visible", lambda self, ids: tl.Tensor(np.asarray(ids) == 0))
    found = failures()
    for way in found:
        complaint(found, way, "padding", "attention", "encoder.layers.0.attention")


def test_a_mask_after_the_softmax(monkeypatch):
    def late(attention, x_BTD):
        q, k, v = attention.queries_keys_values(x_BTD)
        weights = tl.softmax(q @ k.swapaxes(-1, -2) / 2)
        weights = weights * np.tri(x_BTD.shape[1], dtype=np.float32)  # rows no longer sum to 1: later keys have a share
        return attention.output((weights @ v).transpose(0, 2, 1, 3).reshape(*x_BTD.shape))

    plant_in_self_attention(monkeypatch, late)
    complaint(failures(), "evaluation", "a later token", "softmax", "decoder.layers.0", line_of(late, "tl.softmax"))


def test_padding_that_is_seen(monkeypatch):
    monkeypatch.setattr(models.Transformer, "visible", lambda self, ids: tl.ones(np.shape(ids), dtype=bool))
    found = failures()
    for way in found:
        complaint(found, way, "padding", "attention", "encoder.layers.0.attention")


def test_a_norm_over_the_batch(monkeypatch):
    def over_the_batch(self, x):
        centred = x - x.mean(axis=0)
        return centred / tl.sqrt((centred * centred).mean(axis=0) + 1e-5) * self.weight + self.bias

    monkeypatch.setattr(nn.LayerNorm, "forward", over_the_batch)
    found = failures()
    for way in found:
        complaint(found, way, "another sentence", "sum", "encoder.layers.0.attention_residual")
    assert "test_causality.py" in found["training"][0]


def test_targets_that_are_not_shifted(monkeypatch):
    """The decoder reads at each position the token that it must predict there."""
    monkeypatch.setattr(batching, "teacher_forcing", lambda ids: ([*map(int, ids), 3], [*map(int, ids), 3]))
    text = complaint(failures(), "training", "a later token", "embedding", "target_embedding")
    assert "those of sentence 0 at position 0 on target token 0 of sentence 0" in text


def test_a_decoder_that_shifts_its_targets(monkeypatch):
    decode = models.Transformer.decoder_output

    def shifted(self, target_ids, memory, source_visible):
        return decode(self, np.roll(target_ids, -1, axis=1), memory, source_visible)

    monkeypatch.setattr(models.Transformer, "decoder_output", shifted)
    found = failures()
    complaint(found, "training", "a later token", "embedding", "target_embedding")


def test_positions_of_another_sentence(monkeypatch):
    def joined(attention, x_BTD):
        row_1LD = x_BTD.reshape(1, -1, x_BTD.shape[-1])  # all sentences as one
        return attention(row_1LD, causal=True).reshape(*x_BTD.shape)

    plant_in_self_attention(monkeypatch, joined)
    found = failures()
    complaint(found, "training", "another sentence", "reshape", "decoder.layers.0", line_of(joined, "as one"))


def test_the_memory_of_another_sentence(monkeypatch):
    encode = models.Transformer.encode
    monkeypatch.setattr(models.Transformer, "encode", lambda self, *args: tl.roll(encode(self, *args), 1, axis=0))
    found = failures()
    for way in found:
        assert "another sentence" in found[way][0] and "by split at tests/" in found[way][0]


def test_a_cache_that_is_one_step_ahead(monkeypatch):
    append = KeyValueCache.append

    def shared(self, keys_BH1K, values_BH1K):
        longer = append(self, keys_BH1K, values_BH1K)
        object.__setattr__(self, "keys", longer.keys)  # the state before this step now holds this step, too
        object.__setattr__(self, "values", longer.values)
        return longer

    monkeypatch.setattr(KeyValueCache, "append", shared)
    found = failures()
    assert not found["training"] and not found["evaluation"]
    text = complaint(found, "token by token", "a later token", "concatenate", "decoder.layers.0.attention_residual")
    assert "decoder_state.py" in text


# ---- what the proof cannot see, and what it needs ------------------------------------------------------------------


def test_a_leak_around_the_graph_is_found_by_trying(monkeypatch):
    def detached(attention, x_BTD):
        return attention(x_BTD, causal=True) + x_BTD.detach().mean(axis=1, keepdims=True)

    plant_in_self_attention(monkeypatch, detached)
    found = failures()
    assert not found["training"]
    assert "does not show in the graph: look for detach" in found["evaluation"][0]


def test_an_op_without_a_rule_is_named(monkeypatch):
    class Double(tl.Function):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    plant_in_self_attention(monkeypatch, lambda attention, x: Double.apply(attention(x, causal=True)))
    found = failures()
    assert "no rule is known for double in module decoder.layers.0" in found["training"][0]


def test_a_model_that_reads_around_its_embeddings_is_not_proved(monkeypatch):
    monkeypatch.setattr(nn.Embedding, "__call__", lambda self, ids: tl.embedding(self.weight, ids), raising=False)
    assert "is read by no nn.Embedding" in failures()["training"][0]


def test_a_vocabulary_that_is_too_small():
    with pytest.raises(UserError, match="a vocabulary of at least 23 subwords is required"):
        list(prove(model_of(TransformerConfig(22, 32, **SIZES))))
    with pytest.raises(UserError, match="max_length must be at least 7, got 6"):
        list(prove(model_of(TransformerConfig(32, 32, **SIZES | {"max_length": 6}))))
