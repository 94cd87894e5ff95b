"""Decoding with logits that are not finite, and on a model with a maximum length: an error, never a wrong result."""

import warnings

import numpy as np
import pytest

import tensorlib as tl
from models import Transformer, TransformerConfig
from models.decoding.beam import beam_search
from models.decoding.checks import NonFiniteLogits
from models.decoding.forced import force_decode
from models.decoding.token_by_token import greedy, sample
from models.text.tokens import EOS
from tests.models.decoding.test_token_by_token import make, sources
from tests.table_model import TableModel

SOURCES = [[4, EOS], [5, 4, EOS], [EOS], [5, 5, EOS]]
DECODERS = {
    "greedy": greedy,
    "greedy with a minimum length": lambda *arguments, **limits: greedy(*arguments, **{"min_length": 1} | limits),
    "a beam": beam_search,
    "a beam of 1": lambda *arguments, **limits: beam_search(*arguments, beam=1, **limits),
    "n best": lambda *arguments, **limits: beam_search(*arguments, n_best=4, **limits),
    "a beam with a minimum length": lambda *arguments, **limits: beam_search(*arguments, **{"min_length": 1} | limits),
    "sampling": sample,
    "sampling from a few": lambda *arguments, **limits: sample(*arguments, top_k=2, **limits),
    "sampling from a nucleus": lambda *arguments, **limits: sample(*arguments, top_p=0.5, **limits),
    "sampling in the cold": lambda *arguments, **limits: sample(*arguments, temperature=1e-9, **limits),
}
each_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)


# ---- logits that are not finite ----


class Spoilt(TableModel):
    """A model whose logits after the first token of one source are spoilt."""

    def __init__(self, spoil, source=(5, 4, EOS)):
        super().__init__()
        self.spoil, self.source = spoil, source

    def logits(self, source, begun):
        logits = super().logits(source, begun).copy()
        logits[EOS] -= 100 * (len(begun) == 0)  # no target ends before
        return self.spoil(logits) if source == self.source and len(begun) == 1 else logits


def one(value):
    def spoil(logits):
        logits[4] = value
        return logits

    return spoil


SPOILT = {
    "all NaN": lambda logits: logits * np.nan,
    "one NaN": one(np.nan),
    "one infinite": one(np.inf),
    "none possible": lambda logits: logits - np.inf,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@each_decoder
def test_logits_that_are_not_finite_raise_and_name_the_source(decode, spoil):
    with pytest.raises(NonFiniteLogits, match="usable logits are required; those for source 1 ") as caught:
        decode(Spoilt(spoil), SOURCES, max_length=4)
    assert caught.value.source == 1 and isinstance(caught.value, FloatingPointError)
    assert len(decode(Spoilt(spoil), [SOURCES[0], *SOURCES[2:]], max_length=4)) == 3


@each_decoder
def test_a_token_may_be_impossible(decode):
    found = decode(Spoilt(one(-np.inf)), SOURCES, max_length=4)
    assert len(found) == len(SOURCES)


@each_decoder
def test_what_follows_the_end_does_not_matter(decode):
    class After(TableModel):
        def logits(self, source, begun):
            logits = super().logits(source, begun).copy()
            if len(begun) == len(source):
                logits[EOS] += 100
            return logits * np.nan if EOS in begun else logits

    assert len(decode(After(), SOURCES, max_length=6)) == len(SOURCES)


def overflowing():
    """Return a Transformer whose weights are finite and overflow."""
    model, rng = make().astype("float32"), np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.replace(np.where(rng.random(parameter.shape) < 0.5, 1e20, -1e20).astype(np.float32))
    return model


@each_decoder
def test_weights_that_overflow_raise_without_a_warning(decode):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NonFiniteLogits):
            decode(overflowing(), sources())


def test_forced_decoding_of_overflowing_weights_raises():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NonFiniteLogits, match="source 0"):
            force_decode(overflowing(), SOURCES, [[4], [5], [], [4, 4]])


def test_forced_decoding_looks_at_the_target_alone():
    class Padded:
        """A model with NaN logits beyond the first two positions of one target."""

        def __init__(self, model, row):
            self.model, self.row = model, row

        def __getattr__(self, name):
            return getattr(self.model, name)

        def decode(self, ids_BT, memory, visible_BS):
            logits = self.model.decode(ids_BT, memory, visible_BS).numpy().copy()
            logits[self.row, 2:] = np.nan
            return tl.Tensor(logits)

    targets = [[4], [5, 5, 5], [6], [4, 4]]
    expected = force_decode(make(), SOURCES, targets)
    assert force_decode(Padded(make(), 0), SOURCES, targets) == expected  # position 2 is padding there
    with pytest.raises(NonFiniteLogits, match="source 1"):
        force_decode(Padded(make(), 1), SOURCES, targets)


def test_non_finite_logits_raise_on_every_backend(backend):
    model = make().astype("float32")
    model.output.weight.replace(model.output.weight.numpy() * np.float32(np.nan))
    model.to(backend)
    for decode in DECODERS.values():
        with pytest.raises(NonFiniteLogits):
            decode(model, sources())


# ---- the model's maximum length ----


def short(**options):
    """Return a model with eight learned positions that never ends a target."""
    sizes = {"layers": 1, "width": 8, "heads": 2, "feed_forward": 8, "max_length": 8, "positions": "learned"}
    model = Transformer(TransformerConfig(9, 9, **sizes | options), tl.Generator(0)).eval()
    model.output.weight.replace(np.zeros_like(model.output.weight.numpy()))  # token 0 is the first of equal ones
    return model


@each_decoder
def test_a_target_ends_at_the_last_learned_position(decode):
    assert len(decode(short(), [[4, EOS]])) == 1  # by default it would be 24 tokens long
    assert len(decode(short(), [[4, EOS]], max_length=8)) == 1
    with pytest.raises(ValueError, match="max_length must be at most 8, the number of the model's positions; got 9"):
        decode(short(), [[4, EOS], [5, EOS]], max_length=[8, 9])
    with pytest.raises(ValueError, match="LearnedPositions: has 8 positions, got a sequence that ends at 9"):
        decode(short(), [[4] * 8 + [EOS]])
    with pytest.raises(ValueError, match="min_length <= max_length"):
        decode(short(), [[4, EOS]], min_length=9)


def test_the_longest_target_uses_every_position():
    (target,) = greedy(short(), [[4, EOS]])
    assert len(target) == 8
    (target,) = greedy(short(positions="sinusoidal"), [[4, EOS]])
    assert len(target) == 24 and short(positions="sinusoidal").longest_target is None


# ---- an own model, and what is given to it ----


class Own(TableModel):
    """A model whose decode_step returns something else; `change` gets the logits (R, V) and the state."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def decode_step(self, ids_B, state):
        return self.change(*super().decode_step(ids_B, state))


RETURNED = [
    (
        lambda y, s: (y[:, None], s),
        ValueError,
        r"\(4, vocabulary\), got \(4, 1, 6\); take the last position, logits\[:, -1\]",
    ),
    (lambda y, s: (y[:1], s), ValueError, r"\(4, vocabulary\), got \(1, 6\)$"),
    (lambda y, s: (y[0], s), ValueError, r"\(4, vocabulary\), got \(6,\)$"),
    (
        lambda y, s: (y.numpy(), s),
        TypeError,
        r"Tensor of .*, got a ndarray of shape \(4, 6\) .*; wrap .* tl\.from_numpy",
    ),
    (lambda y, s: (None, s), TypeError, "Tensor of shape .*, got None"),
    (lambda y, s: y, TypeError, r"pair \(logits, state\), got a Tensor of shape \(4, 6\)"),
]


@each_decoder
@pytest.mark.parametrize(("change", "error", "message"), RETURNED)
def test_logits_of_another_form_are_named(decode, change, error, message):
    with pytest.raises(error, match=rf"^decoding: decode_step must return (logits as|a) .*{message}"):
        decode(Own(change), SOURCES)


def test_logits_of_forced_decoding_are_checked_too():
    model = Transformer(TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16))
    right = model.decode
    model.decode = lambda *arguments: right(*arguments).numpy()
    with pytest.raises(
        TypeError, match=r"^decoding: decode must return logits as a Tensor of shape \(1, 3, vocabulary\)"
    ):
        force_decode(model, [[4, EOS]], [[5, 6]])
    model.decode = lambda *arguments: right(*arguments)[:, -1]
    with pytest.raises(ValueError, match=r"shape \(1, 3, vocabulary\), got \(1, 9\)$"):
        force_decode(model, [[4, EOS]], [[5, 6]])


GIVEN = [
    ([4, 5, EOS], "got 4 among them; for one sentence write [ids]"),
    (np.array([4, 5, EOS]), "got 4 among them; for one sentence write [ids]"),
    ("je suis", "got 'je suis'; encode text with tokenizer.encode_source(texts)"),
    (["je suis"], "got 'je suis'; encode text with tokenizer.encode_source(texts)"),
    ([["je", "suis"]], "got ['je', 'suis'] among them"),
    ([[4.0, 5.0]], "got [4.0, 5.0] among them"),
    ([[[4, 5]]], "got [[4, 5]] among them"),
    ([None], "got None among them"),
]


@each_decoder
@pytest.mark.parametrize(("given", "message"), GIVEN)
def test_sources_that_are_not_ids_are_named(decode, given, message):
    with pytest.raises(TypeError) as caught:
        decode(TableModel(), given)
    assert str(caught.value) == f"decoding: sources must hold a list of ids for each sentence, {message}"


def test_targets_that_are_not_ids_are_named():
    model = Transformer(TransformerConfig(9, 9, layers=1, width=8, heads=2, feed_forward=16))
    with pytest.raises(TypeError, match="targets must hold a list of ids for each sentence, got 'a'; encode text"):
        force_decode(model, [[4, EOS]], ["a"])
    assert len(force_decode(model, [[4, EOS]], [[]])) == 1


@each_decoder
def test_a_model_without_the_methods_is_named(decode):
    class Half:
        def encode(self, source_BS, visible_BS):
            return None

    with pytest.raises(
        TypeError, match=r"needs the methods evaluating, .* but .*Half lacks evaluating, visible, start, dec"
    ):
        decode(Half(), SOURCES)
