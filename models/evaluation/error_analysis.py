"""`tensorlib evaluate --errors`: what a model cannot do, and whether the model or the search is to blame.

Of a sentence that is not translated as its reference two scores are compared, both as the search ranks, length penalty
included: that of the model's own hypothesis, and that of the reference, which is forced on it. Where the reference
scores higher, the search missed what it was looking for: a search error. Else the wrong scores higher than the right: a
model error (Stahlberg and Byrne 2019, "On NMT search errors and model errors: cat got your tongue?").
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from models.decoding.hypothesis import Hypothesis, length_penalty
from models.evaluation.translator import Translator, sentence_log_probs
from models.system.terminal import printable
from models.text.lines import Pair
from models.text.tokens import UNK

__all__ = ["Case", "align", "error_report", "find_cases", "repetition", "words"]

TOO_SHORT, TOO_LONG = 0.75, 4 / 3  # hypothesis to reference, in words
REPEATING = 0.1  # so much more of the hypothesis than of the reference is repeated
CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without spaces: each character counts as a word
WORD = re.compile(f"[{CJK}]|[^\\s{CJK}]+")
MARKS = {"S": "33", "D": "31", "I": "36"}  # substituted, deleted, inserted; and in what colour a terminal shows it

Column = tuple[str, str, str]  # a word of the reference, the word of the hypothesis across from it, and a mark


@dataclass(frozen=True)
class Case:
    """A sentence that was not translated as its reference."""

    line: int
    """Counted from 1."""
    source: str
    reference: str
    hypothesis: str
    reference_log_prob: float
    """Of the whole sentence, </s> included."""
    hypothesis_log_prob: float
    reference_tokens: int
    """Subwords, </s> included."""
    hypothesis_tokens: int
    """Subwords, and </s> if it came in time."""
    unknown: int
    """Subwords of source and hypothesis that are <unk> or a byte of a character that the vocabulary lacks."""
    alpha: float = 0.0
    """The length penalty that the search ranked by."""

    @property
    def difference(self) -> float:
        """Log-probability of a token: the hypothesis's less the reference's."""
        return self.hypothesis_log_prob / self.hypothesis_tokens - self.reference_log_prob / self.reference_tokens

    @property
    def search_error(self) -> bool:
        """Whether the reference, as a whole, has a higher score than what the search found."""
        reference = self.reference_log_prob / length_penalty(self.reference_tokens, self.alpha)
        return reference > self.hypothesis_log_prob / length_penalty(self.hypothesis_tokens, self.alpha)

    @property
    def length_ratio(self) -> float:
        """Words of the hypothesis to those of the reference."""
        return len(words(self.hypothesis)) / max(len(words(self.reference)), 1)

    @property
    def repeating(self) -> bool:
        """Whether the hypothesis says things again that the reference doesn't."""
        return repetition(self.hypothesis) > repetition(self.reference) + REPEATING


def find_cases(
    translator: Translator, pairs: Sequence[Pair], sources: Sequence[Sequence[int]], found: Sequence[Hypothesis]
) -> tuple[list[Case], int]:
    """Return the wrong translations, the largest difference first, and how many could not be scored.

    sources, found: what the translator read and wrote of each pair. Not scored are pairs with a blank side and
    references longer than a translation may become.
    """
    model, tokenizer, search = translator.model, translator.tokenizer, translator.search
    references = tokenizer.encode_target([reference for _, reference in pairs])
    hypotheses = [tokenizer.decode_target(hypothesis.tokens) for hypothesis in found]
    wrong = [i for i, (_, reference) in enumerate(pairs) if hypotheses[i] != reference]
    most = [search.limit(source, translator.longest) for source in sources]
    scored = [i for i in wrong if pairs[i][0].strip() and pairs[i][1].strip() and len(references[i]) < most[i]]
    of_references = sentence_log_probs(model, [(sources[i], references[i]) for i in scored])
    cases = [
        Case(
            i + 1,
            *pairs[i],
            hypotheses[i],
            of_references[n],
            found[i].log_prob,
            len(references[i]) + 1,
            len(found[i].log_probs),
            _unknown(tokenizer.source, sources[i]) + _unknown(tokenizer.target, found[i].tokens),
            search.length_penalty,
        )
        for n, i in enumerate(scored)
    ]
    return sorted(cases, key=lambda case: (-abs(case.difference), case.line)), len(wrong) - len(scored)


def _unknown(subwords: Any, ids: Sequence[int]) -> int:
    pieces = subwords.pieces(ids)
    return sum(i == UNK or bool(re.fullmatch("<0x..>", piece)) for i, piece in zip(ids, pieces, strict=True))


# ---- text ----


def words(text: str) -> list[str]:
    """Return the words of a text: what spaces part, and each Chinese or Japanese character for itself."""
    return WORD.findall(text)


def repetition(text: str, n: int = 2) -> float:
    """Return the part of the n-grams of words that were there before: 1 - distinct / all.

    It is seq-rep-n of Welleck et al. 2020, "Neural text generation with unlikelihood training".
    """
    found = words(text)
    ngrams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def align(reference: str, hypothesis: str) -> list[Column]:
    """Lay two sentences side by side, word by word: equal words across from each other, others marked S, D or I."""
    old, new = words(reference), words(hypothesis)
    columns: list[Column] = []
    for _, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for left, right in zip_longest(old[a:b], new[c:d], fillvalue=""):
            columns.append((left, right, "" if left == right else "I" if not left else "D" if not right else "S"))
    return columns


# ---- the report ----


def error_report(
    cases: Sequence[Case], count: int, sentences: int, unscored: int, tokenize: str = "13a", width: int | None = None
) -> Iterator[str]:
    """Yield the lines of a report: a summary of all cases, and the first `count` of them one by one.

    sentences, unscored: how many were translated, and how many of the wrong ones are no case. tokenize: how BLEU finds
    words. width: of a line; by default the terminal's. Colours mark what differs on a terminal alone.
    """
    from sacrebleu.metrics import BLEU, CHRF

    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    bleu: Any = BLEU(tokenize=tokenize, effective_order=True, force=True)
    chrf: Any = CHRF()
    yield from _summary(cases, sentences, unscored)
    if cases[:count]:
        yield ""
        yield (
            f"The {len(cases[:count]):,} with the largest difference of log-probability a token; "
            "S substituted, D deleted, I inserted"
        )
    for case in cases[:count]:
        quality = [metric.sentence_score(case.hypothesis, [case.reference]).score for metric in (bleu, chrf)]
        yield ""
        yield from _details(case, *quality)
        yield from _aligned(align(printable(case.reference), printable(case.hypothesis)), width, colour)


def _summary(cases: Sequence[Case], sentences: int, unscored: int) -> Iterator[str]:
    search = sum(case.search_error for case in cases)
    rows = [
        ("search errors", search, "the reference has a higher score than what was said: search wider"),
        ("model errors", len(cases) - search, "what was said has a higher score than the reference: train better"),
        ("too short", sum(case.length_ratio < TOO_SHORT for case in cases), "under 3/4 of the reference's words"),
        ("too long", sum(case.length_ratio > TOO_LONG for case in cases), "over 4/3 of the reference's words"),
        ("repeating", sum(case.repeating for case in cases), "pairs of words again, more than in the reference"),
        ("unknown", sum(case.unknown > 0 for case in cases), "with characters spelled in bytes, or <unk>"),
    ]
    left_out = f"; {unscored:,} of them blank or too long to score" if unscored else ""
    yield f"errors      {len(cases) + unscored:,} of {sentences:,} sentences differ from their reference{left_out}"
    for name, number, meaning in rows:
        yield f"  {name:<14}{number:>7,}  {meaning}"


def _details(case: Case, bleu: float, chrf: float) -> Iterator[str]:
    blame = "search error" if case.search_error else "model error"
    facts = [
        f"line {case.line}: {blame}, difference {case.difference:+.3f}",
        f"BLEU {bleu:.1f}",
        f"chrF {chrf:.1f}",
        f"length ratio {case.length_ratio:.2f}",
        f"repetition {repetition(case.hypothesis):.0%}",
        *([f"unknown {case.unknown}"] if case.unknown else []),
        *(["only spaces differ"] if words(case.reference) == words(case.hypothesis) else []),
    ]
    yield ", ".join(facts)
    yield f"  source      {printable(case.source)}"
    for name in ("reference", "hypothesis"):
        total, tokens = getattr(case, f"{name}_log_prob"), getattr(case, f"{name}_tokens")
        yield f"  log p       {total:.2f} / {tokens} = {total / tokens:.3f}  {name}"


def _aligned(columns: Sequence[Column], width: int, colour: bool) -> Iterator[str]:
    """Yield three lines, reference, hypothesis and marks, or more of them where one line has no room."""
    room, start = max(width - 14, 20), 0
    while start < len(columns):
        end, used = start, 0
        while end < len(columns) and (end == start or used + _breadth(columns[end]) <= room):
            used += _breadth(columns[end]) + 1
            end += 1
        for name, row in (("reference", 0), ("hypothesis", 1), ("", 2)):
            cells = [_padded(column, row, colour) for column in columns[start:end]]
            if line := " ".join(cells).rstrip():
                yield f"  {name:<10}  {line}"
        start = end


def _breadth(column: Column) -> int:
    return max(map(_columns_of, column))


def _padded(column: Column, row: int, colour: bool) -> str:
    text, mark = column[row], column[2]
    padding = " " * (_breadth(column) - _columns_of(text))
    return f"\x1b[{MARKS[mark]}m{text}\x1b[0m{padding}" if colour and mark and text else text + padding


def _columns_of(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese character two, a combining accent none."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)
