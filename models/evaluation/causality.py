"""The proof that no logit depends on what it must not see: later tokens, padding, other sentences.

It is a proof by `tl.depends` about the graph of one small batch, not a test at some values: it holds for all values of
the embeddings and of the weights, and for every draw of dropout, in exact arithmetic. It is about the shapes of that
batch; masks of other lengths are made by the same lines. What goes around the graph, such as `detach`, it cannot see,
so logits are also compared after other tokens were read.

Shape suffixes: B sentences, S source length, T target length, D width, V vocabulary; t counts steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import nn
import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder
from models.architectures.language import LanguageModel
from models.evaluation.leaks import Leak, Token, described
from models.system.errors import UserError
from models.text.batching import Batch, make_batch
from models.text.tokens import BOS, EOS, PAD

__all__ = ["CausalityReport", "SmallText", "prove"]

SOURCE_LENGTHS, TARGET_LENGTHS = (4, 2, 1), (6, 4, 2)  # words; S = 5, T = 7 and 3 sentences are then told apart by size
PROMPT = 2  # tokens of a prompt, which is what a language model has for a source
SHOWN = 6  # leaks of one kind whose paths are followed


@dataclass(frozen=True)
class CausalityReport:
    """What was proved about one way of computing the logits."""

    way: str
    pairs: int
    """The pairs of a logit's position and a token that must not depend on each other."""
    failures: tuple[str, ...]
    """A line for each place where one does."""


def prove(model: EncoderDecoder) -> Iterator[CausalityReport]:
    """Yield a report for each way in which a model computes logits. `model` ends in evaluation mode.

    Errors: `UserError` if its vocabulary or its longest sentence is too small for three short sentences.
    """
    for prompt in (0, PROMPT) if isinstance(model, LanguageModel) else (0,):
        text = SmallText.of(model, prompt)
        after = " after a prompt" if prompt else ""
        yield _all_positions(f"training{after}", model.train(), text)
        yield _all_positions(f"evaluation{after}", model.eval(), text)
        yield _step_by_step(f"token by token{after}", model.eval(), text)


# ---- the sentences -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallText:
    """Three sentences of different lengths in which no two tokens are equal, so that ids tell what was read."""

    batch: Batch
    source_BS: np.ndarray
    """What the model is given as the source: for a language model a prompt, or nothing."""
    tokens: dict[int, Token]

    @classmethod
    def of(cls, model: EncoderDecoder, prompt: int = 0) -> SmallText:
        """Return sentences for a model."""
        first, count = EOS + 1, sum(SOURCE_LENGTHS) + sum(TARGET_LENGTHS)
        sizes = [m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Embedding)]
        if min(sizes, default=0) < first + count:
            raise UserError(
                f"check --causality: a vocabulary of at least {first + count} subwords is required, because no two "
                f"tokens may be equal; got {min(sizes, default=0)}"
            )
        longest: int = model.config.max_length
        if longest < (needed := max(TARGET_LENGTHS) + 1 + prompt):
            raise UserError(f"check --causality: max_length must be at least {needed}, got {longest}")
        ids = iter(range(first, first + count))
        sources = [[next(ids) for _ in range(n)] for n in SOURCE_LENGTHS]
        targets = [[next(ids) for _ in range(n)] for n in TARGET_LENGTHS]
        tokens = {
            i: Token(side, b, place)
            for side, sentences in (("source", sources), ("target", targets))
            for b, sentence in enumerate(sentences)
            for place, i in enumerate(sentence)
        }
        batch = make_batch([([*s, EOS], t) for s, t in zip(sources, targets, strict=True)])
        source_BS = batch.source_BS
        if isinstance(model, LanguageModel):  # prompts have one length
            source_BS = np.array(sorted(tokens)[: 3 * prompt], np.int64).reshape(3, prompt)
            tokens |= {int(i): Token("source", b, p) for (b, p), i in np.ndenumerate(source_BS)}
        return cls(batch, source_BS, tokens)

    def read(self, i: int, row: int, place: int, length: int) -> Token:
        """Return what an id means that is read in the row of a sentence, at a position of `length`."""
        if i == PAD:
            return Token("padding", row, place)
        if i == BOS:
            return Token("target", row, -1)
        if i == EOS:
            source = length == self.source_BS.shape[1]
            return Token("source" if source else "target", row, (SOURCE_LENGTHS if source else TARGET_LENGTHS)[row])
        return self.tokens[i]

    def predicted(self, b: int, t: int) -> int | None:
        """Return the place in its sentence of the token that the logits at position t predict; None for padding."""
        i = int(self.batch.target_out_BT[b, t])
        return None if i == PAD else TARGET_LENGTHS[b] if i == EOS else self.tokens[i].place


# ---- recording ---------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """A call of an embedding: its output, and the token that each id means."""

    output: tl.Tensor
    tokens: np.ndarray[Any, Any]
    """Tokens, in the shape of the ids."""


@dataclass
class Recorder:
    """Notes the calls of all embeddings of a model."""

    text: SmallText
    rows: Sequence[int] = (0, 1, 2)
    """The sentence in each row, which `select` of a state changes."""
    reads: list[Read] = field(default_factory=list)

    @contextmanager
    def watching(self, model: EncoderDecoder) -> Iterator[None]:
        """Note the calls inside, and record formulas and source lines."""
        with ExitStack() as stack:
            stack.enter_context(tl.record_formulas())
            stack.enter_context(tl.record_source())
            for module in model.modules():
                if isinstance(module, nn.Embedding):
                    stack.enter_context(module.register_forward_hook(self.note))
            yield

    def note(self, module: nn.Module, arguments: tuple[Any, ...], output: tl.Tensor) -> None:
        """Note a call; it is a hook."""
        ids = np.asarray(arguments[0].data if isinstance(arguments[0], tl.Tensor) else arguments[0])
        tokens = np.empty(ids.shape, object)
        for place in np.ndindex(ids.shape):
            position = place[1] if ids.ndim > 1 else 0
            tokens[place] = self.text.read(int(ids[place]), self.rows[place[0]], position, ids.shape[-1])
        self.reads.append(Read(output, tokens))


# ---- ways to compute logits ----------------------------------------------------------------------------------------


def _all_positions(way: str, model: EncoderDecoder, text: SmallText) -> CausalityReport:
    """Prove it of all positions at once."""
    recorder = Recorder(text)
    with recorder.watching(model):
        logits_BTV = model(text.source_BS, text.batch.target_in_BT)
    pairs, failures = _proved(logits_BTV, recorder.reads, text, [0] * logits_BTV.shape[1])
    if not failures and not model.training:
        failures = _unseen(lambda ids_BT: model(text.source_BS, ids_BT), text)
    return CausalityReport(way, pairs, tuple(failures))


def _step_by_step(way: str, model: EncoderDecoder, text: SmallText) -> CausalityReport:
    """Prove it of cached decoding: of each step, and of each step repeated from its kept state, in other rows."""
    recorder = Recorder(text)
    with recorder.watching(model):
        columns, begins = _decoded(model, text, recorder)
        logits_BtV = tl.stack(columns, axis=1)
    pairs, failures = _proved(logits_BtV, recorder.reads, text, begins)
    if not failures:
        with tl.no_grad():  # caches are then buffers that are written to, and compiled kernels may run
            unrecorded = tl.stack(_decoded(model, text, Recorder(text))[0], axis=1)
        failures = _same(unrecorded, logits_BtV, "decode_step without gradients gives other logits than with them")
    return CausalityReport(way, pairs, tuple(failures))


def _decoded(model: EncoderDecoder, text: SmallText, recorder: Recorder) -> tuple[list[tl.Tensor], list[int]]:
    """Return logits (B, V) of all steps and all repeated steps, and for each the number of reads before it."""
    ids_BT = text.batch.target_in_BT
    visible_BS = None if isinstance(model, LanguageModel) else model.visible(text.source_BS)
    state = model.start(model.encode(text.source_BS, visible_BS), visible_BS)
    columns, begins, states = [], [], []
    for ids_B in ids_BT.T:
        states.append(state)
        begins.append(len(recorder.reads))
        logits_BV, state = model.decode_step(ids_B, state)
        columns.append(logits_BV)
    order = np.array([2, 0, 1])
    recorder.rows = order.tolist()
    for ids_B, kept in zip(ids_BT.T, states, strict=True):
        begins.append(len(recorder.reads))
        logits_BV, _ = model.decode_step(ids_B[order], kept.select(order))
        columns.append(logits_BV[np.argsort(order)])
    recorder.rows = (0, 1, 2)
    return columns, begins


# ---- the proof -----------------------------------------------------------------------------------------------------


def _proved(
    logits_BtV: tl.Tensor, reads: Sequence[Read], text: SmallText, begins: Sequence[int]
) -> tuple[int, list[str]]:
    """Return how many pairs must not depend on each other, and a line for each place where one does.

    begins: for each column of the logits, the number of reads before the step that computed it.
    """
    missing = set(text.tokens.values()) - {token for read in reads for token in read.tokens.flat}
    if missing and (unread := sorted(t for t in missing if t.side == "target")):
        return 0, [f"{unread[0]} is read by no nn.Embedding, so nothing can be proved about it"]
    ndim = reads[0].output.ndim
    found = tl.depends(logits_BtV, [r.output for r in reads], axes=range(ndim - 1), axes_of_y=(0, 1))
    pairs, leaks, steps = 0, [], text.batch.target_in_BT.shape[1]
    for number, (read, dependence) in enumerate(zip(reads, found, strict=True)):
        for b, column in np.ndindex(logits_BtV.shape[:2]):
            t, predicted = column % steps, text.predicted(b, column % steps)
            if predicted is not None and column >= steps and number < begins[steps]:
                predicted -= 1  # a repeated step reads the latest token itself, which may be another one this time
            for place, token in np.ndenumerate(read.tokens):
                kind = token.hidden_from(b, predicted)
                pairs += kind is not None
                if kind is not None and dependence[(b, column, *place)]:
                    begin = reads[begins[column]].output.node if begins[column] else None
                    since = 0 if begin is None else begin.serial
                    leaks.append(Leak(kind, b, t, token, dependence, (b, column, *place), since))
    sizes = (len(text.source_BS), text.source_BS.shape[1], text.batch.target_in_BT.shape[1])
    return pairs, described(leaks, sizes, SHOWN)


def _unseen(logits_of: Callable[[np.ndarray], tl.Tensor], text: SmallText) -> list[str]:
    """Return how logits change that must not, if later tokens or other sentences are replaced by others."""
    ids_BT = text.batch.target_in_BT
    with tl.no_grad():
        before = logits_of(ids_BT)
        for t in range(1, ids_BT.shape[1]):
            changed = ids_BT.copy()
            later = changed[:, t:]
            later[later != PAD] = min(text.tokens)
            what = f"the logits before position {t} change if the tokens from there on are replaced"
            unseen = _same(logits_of(changed)[:, :t], before[:, :t], what)
            if unseen:
                return [f"{unseen[0]}; it does not show in the graph: look for detach, arrays, argmax and the like"]
        for b in range(len(ids_BT)):
            changed = np.where((np.arange(len(ids_BT)) == b)[:, None] | (ids_BT == PAD), ids_BT, min(text.tokens))
            unseen = _same(logits_of(changed)[b], before[b], f"the logits of sentence {b} change with the others")
            if unseen:
                return [f"{unseen[0]}; it does not show in the graph: look for detach, arrays, argmax and the like"]
    return []


def _same(found: tl.Tensor, expected: tl.Tensor, complaint: str) -> list[str]:
    """Return a complaint unless logits are equal up to rounding."""
    difference = float(np.abs(found.numpy() - expected.numpy()).max())
    scale = float(np.abs(expected.numpy()).max())
    return [] if difference <= 1e-4 * scale + 1e-6 else [f"{complaint}, by up to {difference:.2g} of {scale:.2g}"]
