"""The page that `tensorlib translate --attention` writes: one HTML file that shows what each head attends to."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

import numpy as np

from models.evaluation.attention_weights import attention_weights, weight_count
from models.runs.loading import Loaded
from models.system.errors import UserError
from models.system.files import require_replaceable
from models.system.terminal import printable
from models.text.subwords import Subwords
from models.text.tokens import BOS
from tensorlib.exchange.safetensors import write_atomically
from tensorlib.messages import plural

__all__ = ["AttentionPage", "attention_page", "check_page_path", "sentence_data"]

TEMPLATE = "attention.html"
PLACEHOLDER = '{"checkpoint": "", "unit": 10000, "sentences": []}'  # the data in the template
UNIT = 10_000  # weights are stored as integers, in ten-thousandths: exact to four decimals, and shorter than base64
MOST_WEIGHTS = 5_000_000  # on one page, about 20 MB; a page with more opens slowly


class WeightMaps(TypedDict):
    """The weights of one kind of attention, flattened in C order."""

    shape: tuple[int, ...]
    """Layers, heads, rows, columns."""
    values: list[int]
    """In units of 1 / UNIT."""


class SentenceData(TypedDict):
    """The JSON that the page's script reads for one sentence."""

    source: str
    target: str
    read: list[str]
    """Tokens of the encoder's input."""
    fed: list[str]
    """Tokens of the decoder's input: <s>, then `written` without its last token."""
    written: list[str]
    """Tokens of the decoder's output."""
    weights: dict[str, WeightMaps]
    """Keys: encoder, decoder, cross; of a recurrent model, cross alone."""


class AttentionPage:
    """A page under construction. It accepts its first sentence always, and further ones up to `MOST_WEIGHTS` in all."""

    def __init__(self, path: Path, loaded: Loaded) -> None:
        if getattr(loaded.model.config, "attention", "") == "none":
            raise UserError("translate --attention: a model with attention is required; this one has none")
        self.path, self._loaded = path, loaded
        self._sentences: list[SentenceData] = []
        self._weights_left, self._left_out = MOST_WEIGHTS, 0

    def add(self, text: str, source_ids: Sequence[int], written_ids: Sequence[int]) -> None:
        """Add one sentence: its text, the ids that the model read and the ids that it wrote. Skip empty output."""
        weights = weight_count(self._loaded.model.config, len(source_ids), len(written_ids))
        if written_ids and self._sentences and weights > self._weights_left:
            self._left_out += 1
        elif written_ids:
            self._weights_left -= weights
            self._sentences.append(sentence_data(self._loaded, text, source_ids, written_ids))

    def write(self, translated: int) -> None:
        """Write the page atomically and report on standard error how many of `translated` sentences it shows."""
        if not self._sentences:
            print("attention: no sentence was translated, so no page was written", file=sys.stderr)
            return
        write_atomically(self.path, attention_page(str(self._loaded.path), self._sentences))
        full = f"; {self._left_out:,} more would have made it slow to open" if self._left_out else ""
        shown = f"{len(self._sentences):,} of {plural(translated, 'sentence')}"
        print(f"attention of {shown}: {self.path}{full}", file=sys.stderr)


def check_page_path(path: Path) -> None:
    """Raise `UserError` if no page can be written to `path`, for which a user may give a sentence or a checkpoint."""
    operation = "translate --attention"
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{operation} {path}: the name of a page to write, FILE.html, is required; give one")
    require_replaceable(path, operation)


def sentence_data(loaded: Loaded, source: str, source_ids: Sequence[int], target_ids: Sequence[int]) -> SentenceData:
    """Return the data that the page shows for one sentence.

    source_ids, target_ids: the ids that the model read and wrote (`Hypothesis.written`). The weights come from feeding
    the model's output back to it. Row t of a map belongs to the step that writes target_ids[t], having read <s> and
    target_ids[:t]. Bahdanau et al. 2015, figure 3, label rows the same way: a row then answers the question "Where did
    the model look when it wrote this token?".
    """
    fed_ids = [BOS, *target_ids][:-1]
    found = attention_weights(loaded.model, source_ids, fed_ids)
    weights = {"encoder": found.encoder_LHSS, "decoder": found.decoder_LHTT, "cross": found.cross_LHTS}
    return {
        "source": printable(source),
        "target": printable(loaded.tokenizer.decode_target(target_ids)),
        "read": _tokens(loaded.tokenizer.source, source_ids),
        "fed": _tokens(loaded.tokenizer.target, fed_ids),
        "written": _tokens(loaded.tokenizer.target, target_ids),
        "weights": {name: {"shape": w.shape, "values": _rounded(w)} for name, w in weights.items() if len(w)},
    }


def attention_page(checkpoint: str, sentences: Sequence[SentenceData]) -> bytes:
    """Return the whole page, with its data inside.

    The data is ASCII with every "<" escaped, so that no text can close the element that contains it. The page's script
    inserts text only as text, never as HTML.
    """
    data = {"checkpoint": printable(checkpoint), "unit": UNIT, "sentences": list(sentences)}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    before, after = (files("models.cli.pages") / TEMPLATE).read_text(encoding="utf-8").split(PLACEHOLDER)
    return f"{before}{text}{after}".encode()


def _tokens(subwords: Subwords, ids: Sequence[int]) -> list[str]:
    return [printable(piece) for piece in subwords.pieces(ids)]


def _rounded(weights: np.ndarray) -> list[int]:
    whole: list[int] = np.rint(weights.astype(np.float64) * UNIT).astype(int).ravel().tolist()
    return whole
