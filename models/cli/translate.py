"""`tensorlib translate` and `tensorlib evaluate`: a trained model at work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from models.cli.attention_page import attention_page, sentence_data
from models.cli.display import bar
from models.cli.prompt import typed_lines
from models.decoding.hypothesis import Hypothesis
from models.decoding.settings import DEFAULT_BEAM, DEFAULT_LENGTH_PENALTY, Search
from models.evaluation.attention_weights import weight_count
from models.evaluation.error_analysis import error_report, find_cases
from models.evaluation.metrics import exact_match, pair_loss, scores
from models.evaluation.translator import Translator
from models.runs.loading import Loaded, load_run
from models.system.errors import UserError
from models.text.corpora.phrasebook import phrasebook
from models.text.lines import Pair, read_parallel, read_tsv
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["evaluate", "translate"]

WORST = 20  # so many sentences `evaluate --errors` lists
PAGE_WEIGHTS = 5_000_000  # about so many weights are on a page of attention, 20 MB: more make it slow to open


def translate(
    *text: Annotated[str, Parameter(allow_leading_hyphen=False)],
    run: Path | None = None,
    search: Annotated[Search, Parameter(name="*", show_default=False, negative="")] = Search(),  # noqa: B008  # it never changes
    scores: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    attention: Path | None = None,
    backend: str = "numpy",
) -> int:
    """Translate text from arguments, or from standard input line by line: N lines in, N lines out.

    What else is asked for stands in columns, with a tab between: LINE SCORE TEXT TOKENS.

    Args:
        text: sentences; without any, standard input is read, on a terminal as they are typed.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        search: how translations are sought.
        scores: put SCORE before each translation, and after it its TOKENS, each with its log-probability: "▁a=-0.12".
        attention: a page to write, FILE.html, that shows in a browser what each head looks at.
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    search.check()
    if attention:
        _check_page(attention)
    loaded = load_run(run, backend)

    def warn_cut(line: int) -> None:
        most = loaded.model.config.max_length
        print(f"tensorlib: line {line + 1}: longer than {most} subwords; the rest isn't translated", file=sys.stderr)

    translator = Translator(loaded.model, loaded.tokenizer, warn_cut, search=search)
    done, page = 0, Page(attention, loaded) if attention else None
    try:
        for lines in [list(text)] if text else typed_lines() if sys.stdin.isatty() else _lines_as_they_come():
            sources = translator.encode(lines, done)
            found = translator.hypotheses(lines, sources, done)
            for line, source, several in zip(lines, sources, found, strict=True):
                done += 1
                for hypothesis in several:
                    sys.stdout.buffer.write(_shown(translator, done, hypothesis, scores).encode() + b"\n")
                if page:
                    page.add(line, source, several[0].written)
            sys.stdout.buffer.flush()
    finally:  # who ends the prompt with Ctrl-C has asked for the page too
        if page:
            page.write(done)
    return 0


def _check_page(page: Path) -> None:
    """Refuse what is no place for a page: a text that was meant to be translated, a checkpoint, a device."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"translate --attention {page}: a page to write, FILE.html, is required; name one")
    _check_output("translate --attention", page)
    if page.is_symlink() or (page.exists() and not page.is_file()):  # another file would take its place
        raise UserError(f"translate --attention {page}: a file is required; it is a link or a device; name another")


class Page:
    """A page of attention that is being filled: with as many sentences as it has room for, but with one at least."""

    def __init__(self, path: Path, loaded: Loaded) -> None:
        self.path, self._loaded = path, loaded
        self._sentences: list[Any] = []
        self._room, self._left_out = PAGE_WEIGHTS, 0

    def add(self, text: str, source: Sequence[int], written: Sequence[int]) -> None:
        """Add what the model looked at when it read `source` and wrote `written`, unless that is nothing."""
        weights = weight_count(self._loaded.model.config, len(source), len(written))
        if written and self._sentences and weights > self._room:
            self._left_out += 1
        elif written:
            self._room -= weights
            self._sentences.append(sentence_data(self._loaded, text, source, written))

    def write(self, done: int) -> None:
        """Write the page, whole or not at all, and say what is on it; `done` sentences were translated."""
        if not self._sentences:
            print("attention: no sentence was translated, so no page was written", file=sys.stderr)
            return
        write_atomically(self.path, attention_page(str(self._loaded.path), self._sentences))
        full = f"; {self._left_out:,} more would have made it slow to open" if self._left_out else ""
        print(f"attention of {len(self._sentences):,} of {done:,} sentences: {self.path}{full}", file=sys.stderr)


def _shown(translator: Translator, line: int, hypothesis: Hypothesis, scores: bool) -> str:
    """Return a translation, in columns where more than the text is asked for."""
    text, several = translator.text(hypothesis), translator.search.n_best > 1
    if not (several or scores):
        return text
    columns = [f"{hypothesis.score:.4f}", text.replace("\t", " ")]
    if scores:
        pieces = [piece.replace("\t", " ") for piece in translator.tokenizer.target.pieces(hypothesis.written)]
        columns.append(" ".join(f"{p}={x:.4f}" for p, x in zip(pieces, hypothesis.log_probs, strict=True)))
    return "\t".join([str(line), *columns] if several else columns)


def _lines_as_they_come(most: int = 256) -> Iterator[list[str]]:
    """Yield the lines of standard input that are there already, up to `most`, so that a single one is answered at once.

    Lines end at newlines alone. What is not UTF-8 is read as U+FFFD: a line stays a line.
    """
    pieces: list[bytes] = []  # of a line whose end has not come; joined once, for a line may be very long
    while data := sys.stdin.buffer.read1(1 << 16):
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*pieces, ended[0]])
            pieces = []
        pieces.append(rest)
        for start in range(0, len(ended), most):
            yield [_text(line) for line in ended[start : start + most]]
    if last := b"".join(pieces):
        yield [_text(last)]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


def evaluate(
    *,
    source: Path | None = None,
    reference: Path | None = None,
    tsv: Path | None = None,
    run: Path | None = None,
    beam: int = DEFAULT_BEAM,
    length_penalty: float = DEFAULT_LENGTH_PENALTY,
    max_length: int = 0,
    tokenize: Literal["13a", "none", "intl", "char", "zh"] | None = None,
    output: Path | None = None,
    errors: Annotated[int | bool, Parameter(negative="", show_default=False)] = False,
    backend: str = "numpy",
) -> int:
    """Measure BLEU and chrF (sacrebleu, with signatures), loss and perplexity on text with known translations.

    Args:
        source: sentences, one a line. [of a run on the phrasebook: its held-out test part]
        reference: their translations, line by line.
        tsv: both in one file instead, separated by a tab.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        beam: how many targets of a sentence are kept open; 1 is greedy.
        length_penalty: alpha of Wu et al. 2016; more makes it prefer longer translations.
        max_length: most subwords of a translation; 0: twice the source's and 20.
        tokenize: how BLEU finds words; none where spaces part them already. [as the run's --bleu-tokenize]
        output: a file to write the translations to.
        errors: list the N sentences whose score is furthest from their reference's, and say what went wrong. [N: 20]
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    search = Search(beam=beam, length_penalty=length_penalty, max_length=max_length)
    search.check()
    if errors < 0:
        raise UserError(f"evaluate --errors: a number of sentences, 0 or more, is required; got {errors}")
    pairs = _text_to_evaluate(source, reference, tsv, output)
    loaded = load_run(run, backend)
    if pairs is None and loaded.config.data != "phrasebook":
        raise UserError(
            f"evaluate: --source and --reference, or --tsv, are required; the run of {loaded.path} has no test part"
        )
    pairs = phrasebook().test if pairs is None else pairs
    tokenize = tokenize or loaded.config.bleu_tokenize
    cut: list[int] = []
    with bar("translating", len(pairs)) as shown:
        translator = Translator(loaded.model, loaded.tokenizer, cut.append, shown.update, search)
        sources = translator.encode([s for s, _ in pairs])
        found = [several[0] for several in translator.hypotheses([s for s, _ in pairs], sources)]
    outputs = [translator.text(hypothesis) for hypothesis in found]
    if output:
        output.write_bytes(b"".join(line.encode() + b"\n" for line in outputs))
    _print_scores(loaded, pairs, outputs, tokenize, len(cut))
    if errors is not False:
        cases, unscored = find_cases(translator, pairs, sources, found)
        count = WORST if errors is True else errors
        print("", *error_report(cases, count, len(pairs), unscored, tokenize), sep="\n")
    return 0


def _text_to_evaluate(
    source: Path | None, reference: Path | None, tsv: Path | None, output: Path | None
) -> list[Pair] | None:
    """Read the text that is named, if any is, and see that the output can be written, and not over the text."""
    if (source is None) != (reference is None):
        raise UserError("evaluate: --source and --reference are required together; got only one of them")
    if tsv and source:
        raise UserError(f"evaluate: text from one place is required; got --source and --tsv {tsv}; give one")
    if output:
        _check_output("evaluate --output", output)
    pairs = read_parallel(source, reference) if source and reference else read_tsv(tsv) if tsv else None
    if output and output.exists() and any(text and output.samefile(text) for text in (source, reference, tsv)):
        raise UserError(f"evaluate --output {output}: a file of its own is required; it is the text; name another")
    return pairs


def _check_output(flag: str, output: Path) -> None:
    """Refuse a place that can't be written to now, not after all the work."""
    if output.is_dir():
        raise UserError(f"{flag} {output}: a file to write is required; it is a directory; name a file in it")
    if not output.parent.is_dir():
        raise UserError(f"{flag} {output}: a directory to write to is required; make {output.parent} first")
    if not os.access(output if output.exists() else output.parent, os.W_OK):
        raise UserError(f"{flag} {output}: a place to write to is required; permission denied")


def _print_scores(loaded: Loaded, pairs: Sequence[Pair], outputs: Sequence[str], tokenize: str, cut: int) -> None:
    references = [reference for _, reference in pairs]
    score = scores(outputs, references, tokenize)
    result, dropped = pair_loss(loaded.model, loaded.tokenizer, pairs)
    too_long = f", {cut:,} cut at {loaded.model.config.max_length} subwords" if cut else ""
    print(f"{loaded.path}: {len(pairs):,} sentences{too_long}")
    print(f"BLEU        {score.bleu:.2f}  {score.bleu_signature}")
    print(f"chrF        {score.chrf:.2f}  {score.chrf_signature}")
    left_out = f", without {dropped} longer sentences" if dropped else ""
    known = result.tokens > 0
    print(f"loss        {f'{result.loss:.4f}' if known else '-'} nats a subword, over {result.tokens:,}{left_out}")
    print(f"perplexity  {f'{result.perplexity:.3f}' if known else '-'}")
    print(f"exact       {exact_match(outputs, references):.1%}")
