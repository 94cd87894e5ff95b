"""Settings for training on the user's own text, chosen by its size.

A small text needs a small vocabulary, so that each subword occurs often enough to be learned, and strong dropout; a
large one allows a larger model, and needs fewer passes. RESULTS.md, "Defaults for own text", measures the first two
rows of `ROWS`, and the fourth with fewer steps. The third has the settings of the recipe multi30k-de-en-hour.toml, but
fewer passes; the last follows the paper that it names. The rows of `LANGUAGE_ROWS`, for language models, have not been
measured; the last has the size of the smallest model of Radford et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from models.runs.config import model_keys
from models.runs.nested_dicts import flat_items
from models.text.size import StreamSize, TextSize
from tensorlib.messages import plural

__all__ = ["LANGUAGE_ROWS", "ROWS", "Choice", "choose", "usual_size"]


@dataclass(frozen=True)
class Row:
    """The settings for texts of fewer than `below` pairs or, for a language model, bytes."""

    below: float
    vocabulary: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    dropout: float
    batch_tokens: int
    accumulate: int
    steps: int  # at least
    passes: int = 0  # over the text, at least


ROWS = (
    Row(1_000, 800, 2, 128, 4, 256, 0.3, 512, 1, 1_500),
    Row(10_000, 2_000, 2, 128, 4, 256, 0.3, 1_024, 1, 3_000),
    Row(40_000, 8_000, 3, 256, 8, 512, 0.3, 2_048, 1, 4_700, passes=20),
    Row(100_000, 8_000, 3, 256, 8, 512, 0.2, 2_048, 1, 4_700, passes=20),
    # Between the row above and the base model.
    Row(1_000_000, 16_000, 4, 384, 8, 1_536, 0.2, 4_096, 1, 20_000),
    # The base model of Vaswani et al. 2017: 37,000 subwords, 25,000 tokens in a batch, 100,000 steps (section 5).
    Row(math.inf, 32_000, 6, 512, 8, 2_048, 0.1, 4_096, 6, 100_000),
)
LANGUAGE_ROWS = (
    Row(300_000, 800, 2, 128, 4, 512, 0.3, 1_024, 1, 1_500),
    Row(3_000_000, 2_000, 4, 128, 4, 512, 0.2, 2_048, 1, 4_000),
    Row(30_000_000, 8_000, 4, 256, 8, 1_024, 0.2, 2_048, 1, 8_000, passes=10),
    Row(1_000_000_000, 16_000, 6, 512, 8, 2_048, 0.1, 4_096, 2, 40_000),
    Row(math.inf, 32_000, 12, 768, 12, 3_072, 0.1, 4_096, 8, 100_000),
)

_LONGER = 240  # subwords longer than a character, at least
_OTHER_SUBWORDS = 4 + 256 + _LONGER  # special tokens, bytes
_INNER_DROPOUT = 0.1  # of attention weights and hidden layers, also where the outputs of sub-layers need more
_RATE = 0.0015  # at width 256; in inverse proportion to the width: 0.003 at 128 and below, 0.00075 at 512
_LONGEST_WARMUP = 4_000  # steps, as in Vaswani et al. 2017, section 5.3
_POSITIONS = 17  # of a sentence, with its padding: a guess for as long as no subwords are learned
_BYTES = 3.5  # of a subword: a guess for as long as none are learned
_CONTEXT = 256  # max_length, for as long as it is not known
_VALIDATIONS = 20
_BLEU_SENTENCES = 500


@dataclass(frozen=True)
class Choice:
    """Settings by dotted key, all chosen for the same reason."""

    settings: dict[str, Any]
    reason: str


def usual_size(given: Mapping[str, Any]) -> TextSize | StreamSize:
    """Return the usual size of the text of a model whose kind is that in `given`, before the text is read."""
    model = given.get("model", {})
    return StreamSize() if model.get("kind") == "language" else TextSize()


def choose(size: TextSize | StreamSize, given: Mapping[str, Any]) -> list[Choice]:
    """Return the settings for a text of this size that `given`, a nested dict, leaves open.

    A setting that depends on another one also follows it if that one is given: the learning rate follows the width,
    and the warmup follows the number of steps.

    >>> for choice in choose(TextSize(pairs=3_000), {"model": {"width": 64}, "steps": 500})[-2:]:
    ...     print(choice.settings, choice.reason, sep="  # ")
    """
    settings = dict(flat_items(given))
    chooser = _LanguageChooser(size, settings) if isinstance(size, StreamSize) else _Chooser(size, settings)
    methods = (chooser.text, chooser.vocabulary, chooser.model, chooser.dropout, chooser.length)
    choices = [method() for method in (*methods, chooser.learning_rate, chooser.validation)]
    return [choice for choice in choices if choice.settings]


class _Chooser:
    """Chooses one group of settings after another; each method reads those that are given or already chosen."""

    positions = "sinusoidal"  # the default of the model

    def __init__(self, size: Any, given: dict[str, Any]) -> None:
        self.size, self.given, self.known = size, given, dict(given)
        self.row, self.amount = self._row()
        self.model_keys = model_keys({"kind": given["model.kind"]} if "model.kind" in given else {})

    def _row(self) -> tuple[Row, str]:
        """Return the row for this size, and the size in words."""
        return next(row for row in ROWS if self.size.pairs < row.below), plural(self.size.pairs, "pair")

    def text(self) -> Choice:
        same = self.size.same_letters or self._get("model.tie_embeddings", False)
        letters = "the same letters" if self.size.same_letters else "different letters"
        return self._choice({"tokenizer.shared": same}, f"the two languages use {letters}")

    def vocabulary(self) -> Choice:
        shared, characters = self.known["tokenizer.shared"], self.size.characters
        needed = sum(characters) if shared else max(characters)
        return self._vocabulary(self.row.vocabulary if shared else self.row.vocabulary // 2, needed)

    def _vocabulary(self, usual: int, needed: int) -> Choice:
        least = _OTHER_SUBWORDS + needed
        why = f"so that each occurs often in {self.amount}"
        if usual < least:
            why = f"{needed:,} characters must fit, {_OTHER_SUBWORDS - _LONGER} other tokens, and some longer subwords"
        return self._choice({"tokenizer.vocabulary": max(usual, least)}, why)

    def model(self) -> Choice:
        row, width = self.row, self._get("model.width", self._width())
        settings = {
            "model.layers": row.layers,
            "model.width": width,
            "model.heads": self._heads(width),
            "model.feed_forward": max(round(row.feed_forward * width / row.width), 1),
            "model.norm": "pre",
            "model.tie_embeddings": self.known["tokenizer.shared"],
        }
        return self._choice(settings, f"a model of a size that {self.amount} can train")

    def _width(self) -> int:
        """Return the width nearest to the row's that the given number of heads divides, and even for positions."""
        heads = self._get("model.heads", 1)
        step = heads if heads % 2 == 0 and not self._rotary() else 2 * heads
        return max(round(self.row.width / step), 1) * step

    def _heads(self, width: int) -> int:
        """Return the largest number of heads up to the row's that fits the width; rotary positions need even heads."""
        even = 2 if self._rotary() else 1
        return max((heads for heads in range(1, self.row.heads + 1) if width % (even * heads) == 0), default=1)

    def _rotary(self) -> bool:
        return bool(self._get("model.positions", self.positions) == "rotary")

    def dropout(self) -> Choice:
        settings = {"model.dropout": self.row.dropout}
        if "model.dropout" not in self.given and self.row.dropout > _INNER_DROPOUT:
            settings |= {"model.attention_dropout": _INNER_DROPOUT, "model.feed_forward_dropout": _INNER_DROPOUT}
        return self._choice(settings, f"against overfitting to {self.amount}")

    def length(self) -> Choice:
        settings = {"optim.accumulate": self.row.accumulate}
        if not self._get("batch_sentences", 0):
            settings["batch_tokens"] = self.row.batch_tokens
        choice = self._choice(settings, "")
        if not self._get("epochs", 0):
            hundreds = round(self.row.passes * self._steps_per_epoch() / 100)
            steps = self._choice({"steps": max(self.row.steps, 100 * hundreds)}, "")
            choice = replace(choice, settings=choice.settings | steps.settings)
        passes = self._steps() / self._steps_per_epoch()
        return replace(choice, reason=f"about {passes:,.{0 if passes >= 2 else 1}f} passes over the text")

    def learning_rate(self) -> Choice:
        width, steps = self.known["model.width"], self._steps()
        schedule = self._get("optim.schedule", "cosine")
        # noam, whose rate is only a factor, divides by the root of the width itself.
        rate = 1.0 if schedule == "noam" else float(f"{_RATE * min(256 / width, 2):.2g}")
        warmup = min(max(steps // 10, 1), _LONGEST_WARMUP)
        settings = {"optim.learning_rate": rate, "optim.schedule": schedule, "optim.warmup": warmup}
        return self._choice(settings, f"follows width {width} and {plural(steps, 'step')}")

    def validation(self) -> Choice:
        every = 0 if self._get("epochs", 0) else max(self._steps() // _VALIDATIONS, 1)  # 0: after each epoch
        every = self._get("validate_every", every)
        settings: dict[str, Any] = {"validate_every": every, "save_every": every} | self._bleu()
        times = math.ceil(self._steps() / max(every, 1))
        reason = "at the end of each epoch" if every == 0 else f"{plural(times, 'validation')} in all"
        return self._choice(settings, reason)

    def _bleu(self) -> dict[str, Any]:
        if not self._get("bleu_sentences", _BLEU_SENTENCES):
            return {"bleu_sentences": _BLEU_SENTENCES}
        # With little text, translations still improve when the loss no longer does.
        return {"bleu_sentences": _BLEU_SENTENCES, "best_by": "bleu"}

    def _get(self, key: str, default: Any) -> Any:
        return self.known.get(key, default)

    def _choice(self, settings: dict[str, Any], reason: str) -> Choice:
        """Return the settings that are left open, and that this kind of model has."""
        chosen = {key: value for key, value in settings.items() if key not in self.given}
        self.known.update(chosen)
        return Choice({key: value for key, value in chosen.items() if self._has(key)}, reason)

    def _has(self, key: str) -> bool:
        return not key.startswith("model.") or key.removeprefix("model.") in self.model_keys

    def _steps(self) -> int:
        """Return the number of steps; an estimate if the number of epochs is given."""
        return self._get("steps", 0) or math.ceil(self._get("epochs", 0) * self._steps_per_epoch())

    def _steps_per_epoch(self) -> float:
        positions, sentences = self._get("batch_tokens", 0), self._get("batch_sentences", 0)
        if self.size.batches:
            batches = self.size.batches(positions, sentences)
        else:
            sentences = sentences or positions / self._sentence()
            batches = math.ceil(self._sentences() / max(sentences, 1))
        return batches / self.known["optim.accumulate"]

    def _sentences(self) -> float:
        """Return the number of rows of all batches of an epoch."""
        return float(self.size.pairs)

    def _sentence(self) -> int:
        """Return the usual number of positions of a row, with its padding."""
        return _POSITIONS


class _LanguageChooser(_Chooser):
    """The same for a language model, whose rows are windows of one text."""

    positions = "rotary"

    def _row(self) -> tuple[Row, str]:
        amount = f"{self.size.bytes / 1e6:,.1f} MB" if self.size.bytes >= 50_000 else f"{self.size.bytes:,} bytes"
        return next(row for row in LANGUAGE_ROWS if self.size.bytes < row.below), f"{amount} of text"

    def text(self) -> Choice:
        self.known["tokenizer.shared"] = True  # there is only one text
        return self._choice({"optim.label_smoothing": 0.0}, "a language model is to learn the text's own probabilities")

    def vocabulary(self) -> Choice:
        return self._vocabulary(self.row.vocabulary, self.size.characters)

    def _bleu(self) -> dict[str, Any]:
        return {}

    def _sentences(self) -> float:
        return self.size.bytes / _BYTES / self._sentence()

    def _sentence(self) -> int:
        return int(self._get("model.max_length", _CONTEXT))
