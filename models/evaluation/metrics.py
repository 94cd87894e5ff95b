"""Measures of quality: the loss on reference translations, and the scores of generated translations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import tensorlib as tl
from models.architectures.encoder_decoder import EncoderDecoder
from models.decoding.checks import NonFiniteLogits
from models.decoding.forced import force_decode
from models.runs.config import BleuTokenize
from models.system.errors import UserError
from models.text.batching import Example, group_by_length, make_batch
from models.text.scripts import dense_script

__all__ = ["Scores", "TokenLoss", "bleu_tokenizer", "exact_match", "scores", "sentence_log_probs", "token_loss"]
__all__ += ["worst_loss"]


@dataclass(frozen=True)
class TokenLoss:
    """The mean cross-entropy of the reference's tokens, in nats, and the number of these tokens."""

    loss: float
    tokens: int

    @property
    def perplexity(self) -> float:
        """exp(loss): a uniform choice among this many subwords would be equally uncertain."""
        return math.inf if self.loss > 709 else math.exp(self.loss)  # exp(710) is more than a float holds


def token_loss(
    model: EncoderDecoder, examples: Sequence[Example], stop: Callable[[], None] = lambda: None
) -> TokenLoss:
    """Return the teacher-forced loss, without label smoothing or dropout; call `stop` before each batch."""
    total, tokens = 0.0, 0
    with model.evaluating(), tl.no_grad(), np.errstate(all="ignore"):  # what overflows shows in the loss
        for group in group_by_length([len(s) + len(t) for s, t in examples]):
            stop()
            batch = make_batch([examples[i] for i in group])
            loss = model.loss(batch.source_BS, batch.target_in_BT, batch.target_out_BT, reduction="sum")
            total, tokens = total + float(loss.item()), tokens + batch.tokens
    return TokenLoss(total / max(tokens, 1), tokens)


def worst_loss(vocabulary: int) -> float:
    """Return the loss above which a model has diverged: the square of a uniform guess's perplexity.

    A uniform guess among all subwords has the loss log(vocabulary). A model with random weights has about that too, so
    a loss of twice as much says that training did harm.
    """
    return 2 * math.log(max(vocabulary, 2))


def sentence_log_probs(model: EncoderDecoder, examples: Sequence[Example]) -> list[float]:
    """Return log P(target | source) of each example: the sum over the target's tokens and </s>.

    Errors: `UserError` naming an example for which the model's logits are not finite.
    """
    found = [0.0] * len(examples)
    for group in group_by_length([len(s) + len(t) for s, t in examples]):
        sources, targets = zip(*[examples[i] for i in group], strict=True)
        try:
            forced = force_decode(model, sources, targets)
        except NonFiniteLogits as error:
            raise UserError(
                f"score: usable logits are required; those for pair {group[error.source]} are NaN or infinite; the "
                "weights are spoilt, or far too large: use an earlier checkpoint"
            ) from None
        for i, hypothesis in zip(group, forced, strict=True):
            found[i] = hypothesis.log_prob
    return found


def exact_match(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Return the fraction of outputs that equal their references, character for character."""
    return float(np.mean([o == r for o, r in zip(outputs, references, strict=True)])) if references else 0.0


# ---- BLEU and chrF ----

_TOKENIZERS: dict[str, list[BleuTokenize]] = {  # sacrebleu's own for these languages, then one that needs no package
    "": ["13a"],
    "Chinese": ["zh"],
    "Japanese": ["ja-mecab", "char"],
    "Korean": ["ko-mecab", "char"],
}
_EXTRAS = {"ja-mecab": "sacrebleu[ja]", "ko-mecab": "sacrebleu[ko]"}


def bleu_tokenizer(asked: BleuTokenize, references: Sequence[str], flag: str) -> tuple[BleuTokenize, str]:
    """Return how BLEU should split references like these into words, and a line that says why, or "".

    asked: a tokenizer of sacrebleu, or "auto": by the script of the references. flag: what sets it, such as --tokenize.

    Errors: `UserError` for a tokenizer that needs a package that is not installed.
    """
    if asked not in ("auto", "13a", "intl"):
        if not _is_installed(asked):
            raise UserError(
                f"{flag} {asked}: MeCab, which finds the words, is required; it is not installed; run pip install "
                f'"{_EXTRAS[asked]}", or use {flag} char'
            )
        return asked, ""
    script = dense_script(references)
    fitting = _TOKENIZERS.get(script, ["char"])
    best = next(name for name in fitting if _is_installed(name))
    if asked != "auto":
        wrong = f"{flag} {asked} looks for words between spaces, which text in {script} lacks; use {flag} {best}"
        return asked, f"BLEU: {wrong}" if script not in ("", "Korean") else ""  # Korean has spaces, between phrases
    missing = f"; for {fitting[0]}, run pip install {_EXTRAS[fitting[0]]}" if best != fitting[0] else ""
    return best, f"BLEU: words found by {best}, because the references are in {script}{missing}" if script else ""


def _is_installed(tokenizer: str) -> bool:
    from sacrebleu.metrics import BLEU

    try:
        BLEU(tokenize=tokenizer)
    except RuntimeError:  # names the package that is missing
        return False
    return True


@dataclass(frozen=True)
class Scores:
    """BLEU and chrF of a corpus, each with sacrebleu's signature, which makes the scores comparable."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def scores(outputs: Sequence[str], references: Sequence[str], tokenize: BleuTokenize = "13a") -> Scores:
    """Score a corpus with sacrebleu. `tokenize` tells BLEU how to find words: see `bleu_tokenizer`."""
    from sacrebleu.metrics import BLEU, CHRF

    if tokenize == "auto":
        tokenize, _ = bleu_tokenizer(tokenize, references, "--tokenize")
    bleu = BLEU(tokenize=tokenize, force=True)  # force: no warning about tokenized text; "none" is deliberate
    chrf = CHRF()
    bleu_score = bleu.corpus_score(list(outputs), [list(references)])
    chrf_score = chrf.corpus_score(list(outputs), [list(references)])
    return Scores(bleu_score.score, str(bleu.get_signature()), chrf_score.score, str(chrf.get_signature()))
