"""`tensorlib evaluate --errors`: wrong translations, and whether the model or the search caused them.

For each translation that differs from its reference, two scores are compared: the score of the model's hypothesis, and
that of the reference by forced decoding, both with the search's length penalty. If the reference scores higher, the
search failed to find it, which is a search error. Otherwise the model prefers the wrong translation, which is a model
error (Stahlberg and Byrne 2019, "On NMT search errors and model errors: cat got your tongue?").
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from models.decoding.hypothesis import Hypothesis, length_penalty
from models.evaluation.metrics import sentence_log_probs
from models.evaluation.translator import Translator
from models.system.numbers import shown_loss
from models.system.terminal import printable, shows_colors
from models.text.lines import Pair
from models.text.scripts import UNSPACED
from models.text.subwords import Subwords
from models.text.tokens import UNK
from tensorlib.messages import plural

__all__ = ["Case", "align", "error_report", "find_cases", "repetition", "words"]

TOO_SHORT, TOO_LONG = 0.75, 4 / 3  # number of words of the hypothesis, divided by that of the reference
REPEATING = 0.1  # a hypothesis is repeating if its repetition exceeds that of the reference by more than this
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")
MARKS = {"S": "33", "D": "31", "I": "36"}  # substituted, deleted, inserted; each with its terminal color

Ids = tuple[Sequence[int], Sequence[int]]  # those of a source, as the translator read it, and those of its reference
Column = tuple[str, str, str]  # a word of the reference, the word of the hypothesis aligned with it, and a mark


@dataclass(frozen=True)
class Case:
    """A sentence whose translation differs from its reference."""

    line: int
    """The number of its line, counted from 1."""
    source: str
    reference: str
    hypothesis: str
    reference_log_prob: float
    """log P of the whole target, </s> included."""
    hypothesis_log_prob: float
    reference_tokens: int
    """Number of subwords, </s> included."""
    hypothesis_tokens: int
    """Number of subwords, </s> included unless the hypothesis was cut at the maximum length."""
    unknown: int
    """Number of subwords in source and hypothesis that are <unk> or a byte of a character outside the vocabulary."""
    alpha: float = 0.0
    """The length penalty of the search."""

    @property
    def difference(self) -> float:
        """Log-probability per token of the hypothesis minus that of the reference."""
        return self.hypothesis_log_prob / self.hypothesis_tokens - self.reference_log_prob / self.reference_tokens

    @property
    def search_error(self) -> bool:
        """Whether the reference, as a whole, has a higher score than the hypothesis."""
        reference = self.reference_log_prob / length_penalty(self.reference_tokens, self.alpha)
        return reference > self.hypothesis_log_prob / length_penalty(self.hypothesis_tokens, self.alpha)

    @property
    def length_ratio(self) -> float:
        """Number of words in the hypothesis divided by the number in the reference."""
        return len(words(self.hypothesis)) / max(len(words(self.reference)), 1)

    @property
    def repeating(self) -> bool:
        """Whether the hypothesis repeats itself clearly more than the reference does."""
        return repetition(self.hypothesis) > repetition(self.reference) + REPEATING


def find_cases(
    translator: Translator, pairs: Sequence[Pair], examples: Sequence[Ids], found: Sequence[Hypothesis]
) -> tuple[list[Case], int]:
    """Return the wrong translations, largest absolute difference first, and how many others could not be scored.

    examples, found: the ids and the translation of each pair. Pairs with a blank side, and references longer than a
    translation may become, are not scored.
    """
    model, tokenizer, search = translator.model, translator.tokenizer, translator.search
    hypotheses = [tokenizer.decode_target(hypothesis.tokens) for hypothesis in found]
    wrong = [i for i, (_, reference) in enumerate(pairs) if hypotheses[i] != reference]
    fits = [len(target) < search.limit(source, translator.longest) for source, target in examples]
    scored = [i for i in wrong if pairs[i][0].strip() and pairs[i][1].strip() and fits[i]]
    reference_log_probs = sentence_log_probs(model, [examples[i] for i in scored])
    cases = [
        Case(
            line=i + 1,
            source=pairs[i][0],
            reference=pairs[i][1],
            hypothesis=hypotheses[i],
            reference_log_prob=log_prob,
            hypothesis_log_prob=found[i].log_prob,
            reference_tokens=len(examples[i][1]) + 1,
            hypothesis_tokens=len(found[i].log_probs),
            unknown=_unknown(tokenizer.source, examples[i][0]) + _unknown(tokenizer.target, found[i].tokens),
            alpha=search.length_penalty,
        )
        for i, log_prob in zip(scored, reference_log_probs, strict=True)
    ]
    return sorted(cases, key=lambda case: (-abs(case.difference), case.line)), len(wrong) - len(scored)


def _unknown(subwords: Subwords, ids: Sequence[int]) -> int:
    pieces = subwords.pieces(ids)
    return sum(i == UNK or bool(re.fullmatch("<0x..>", piece)) for i, piece in zip(ids, pieces, strict=True))


# ---- text ----


def words(text: str) -> list[str]:
    """Return the words of a text, which are separated by spaces; each character of a script without them is a word."""
    return WORD.findall(text)


def repetition(text: str, n: int = 2) -> float:
    """Return the fraction of n-grams of words that repeat an earlier n-gram: 1 - distinct / all.

    This is seq-rep-n of Welleck et al. 2020, "Neural text generation with unlikelihood training".
    """
    found = words(text)
    ngrams = [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
    return 1 - len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def align(reference: str, hypothesis: str) -> list[Column]:
    """Align two sentences word by word; columns whose two words differ are marked "S", "D" or "I"."""
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
    """Yield the lines of a report: a summary of all cases, and details of the first `count`.

    sentences, unscored: the number of translated sentences, and the number of wrong ones that are not among the cases.
    tokenize: how BLEU finds words.
    width: the width of a line, by default that of the terminal. Differences are colored only on a terminal.
    """
    from sacrebleu.metrics import BLEU, CHRF

    color = shows_colors(sys.stdout)
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    bleu = BLEU(tokenize=tokenize, effective_order=True, force=True)
    chrf = CHRF()
    yield from _summary(cases, sentences, unscored)
    if cases[:count]:
        yield ""
        yield (
            f"The {len(cases[:count]):,} with the largest difference in log-probability per token; "
            "S substituted, D deleted, I inserted"
        )
    for case in cases[:count]:
        quality = [metric.sentence_score(case.hypothesis, [case.reference]).score for metric in (bleu, chrf)]
        yield ""
        yield from _details(case, *quality)
        yield from _aligned(align(printable(case.reference), printable(case.hypothesis)), width, color)


def _summary(cases: Sequence[Case], sentences: int, unscored: int) -> Iterator[str]:
    search = sum(case.search_error for case in cases)
    rows = [
        ("search errors", search, "the reference scores higher than the translation: search wider"),
        ("model errors", len(cases) - search, "the translation scores higher than the reference: train better"),
        ("too short", sum(case.length_ratio < TOO_SHORT for case in cases), "under 3/4 of the reference's words"),
        ("too long", sum(case.length_ratio > TOO_LONG for case in cases), "over 4/3 of the reference's words"),
        ("repeating", sum(case.repeating for case in cases), "more repeated pairs of words than in the reference"),
        ("unknown", sum(case.unknown > 0 for case in cases), "with characters spelled in bytes, or <unk>"),
    ]
    left_out = f"; {unscored:,} of them blank or too long to score" if unscored else ""
    different = len(cases) + unscored
    verb = "differs from its" if different == 1 else "differ from their"
    yield f"errors      {different:,} of {plural(sentences, 'sentence')} {verb} reference{left_out}"
    for name, number, meaning in rows:
        yield f"  {name:<14}{number:>7,}  {meaning}"


def _details(case: Case, bleu: float, chrf: float) -> Iterator[str]:
    kind = "search error" if case.search_error else "model error"
    facts = [
        f"line {case.line}: {kind}, difference {case.difference:+.3f}",
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
        yield f"  log p       {shown_loss(total, 2)} / {tokens} = {shown_loss(total / tokens, 3)}  {name}"


def _aligned(columns: Sequence[Column], width: int, color: bool) -> Iterator[str]:
    """Yield lines of reference, hypothesis and marks in turn, several of each if the words do not fit on one line."""
    room, start = max(width - 14, 20), 0
    while start < len(columns):
        end, used = start, 0
        while end < len(columns) and (end == start or used + _column_width(columns[end]) <= room):
            used += _column_width(columns[end]) + 1
            end += 1
        for name, row in (("reference", 0), ("hypothesis", 1), ("", 2)):
            cells = [_padded(column, row, color) for column in columns[start:end]]
            if line := " ".join(cells).rstrip():
                yield f"  {name:<10}  {line}"
        start = end


def _column_width(column: Column) -> int:
    return max(map(_text_width, column))


def _padded(column: Column, row: int, color: bool) -> str:
    text, mark = column[row], column[2]
    padding = " " * (_column_width(column) - _text_width(text))
    return f"\x1b[{MARKS[mark]}m{text}\x1b[0m{padding}" if color and mark and text else text + padding


def _text_width(text: str) -> int:
    """Return the width of a text in terminal columns: two for a Chinese character, none for a combining accent."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)
