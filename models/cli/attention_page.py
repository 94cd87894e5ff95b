"""`tensorlib translate --attention`: what the heads look at, as one page for a browser, which fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from models.evaluation.attention_weights import attention_weights
from models.runs.loading import Loaded
from models.system.terminal import printable
from models.text.subwords import Subwords
from models.text.tokens import BOS

__all__ = ["attention_page", "sentence_data"]

TEMPLATE = "attention_page.html"
EMPTY = '{"checkpoint": "", "unit": 10000, "sentences": []}'  # what stands in the template in place of the data
UNIT = 10_000  # weights are whole numbers of ten-thousandths: four digits, and less room than base64 takes


def sentence_data(loaded: Loaded, source: str, source_ids: Sequence[int], target_ids: Sequence[int]) -> dict[str, Any]:
    """Return what the page shows of one sentence, as JSON holds it.

    source_ids, target_ids: what the model read and wrote (`Hypothesis.written`); its own output is given to it again.
    Row t of a map belongs to the step that writes target_ids[t], having read <s> and target_ids[:t] (Bahdanau et al.
    2015, figure 3, labels its rows so), which is what a person asks about: where did it look when it wrote this?
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
        "weights": {name: {"shape": w.shape, "values": _rounded(w)} for name, w in weights.items()},
    }


def attention_page(checkpoint: str, sentences: Sequence[dict[str, Any]]) -> bytes:
    """Return the page, whole in itself, with what `sentence_data` made of each sentence.

    In the data every character beyond ASCII and every "<" is escaped as JSON has it, so no text can end the element
    that it stands in, and the page's script writes text as text only.
    """
    data = {"checkpoint": printable(checkpoint), "unit": UNIT, "sentences": list(sentences)}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    before, after = (files("models.cli") / TEMPLATE).read_text(encoding="utf-8").split(EMPTY)
    return f"{before}{text}{after}".encode()


def _tokens(subwords: Subwords, ids: Sequence[int]) -> list[str]:
    return [printable(piece) for piece in subwords.pieces(ids)]


def _rounded(weights: np.ndarray) -> list[int]:
    whole: list[int] = np.rint(weights.astype(np.float64) * UNIT).astype(int).ravel().tolist()
    return whole
