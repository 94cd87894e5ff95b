"""`tensorlib translate`: translate each line of text, from arguments, a file or standard input."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Parameter

from models.cli.display import note
from models.cli.options import SearchOptions, search_of
from models.cli.pages.attention import AttentionPage, check_page_path
from models.cli.prompt import typed_lines
from models.decoding.hypothesis import Hypothesis
from models.evaluation.checks import refuse_line, require_translator
from models.evaluation.translator import Translator
from models.runs.loading import load_run
from models.system.errors import UserError
from models.system.files import require_file, require_replaceable
from models.system.terminal import command, printable
from models.text.lines import stream_lines
from tensorlib.exchange.safetensors import write_atomically

__all__ = ["translate"]

MOST_WARNINGS = 10  # of one kind: in text of another encoding, every line gives one


def translate(
    *text: Annotated[str, Parameter(allow_leading_hyphen=False)],
    input: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    output: Annotated[Path | None, Parameter(allow_leading_hyphen=True)] = None,
    run: Path | None = None,
    options: SearchOptions | None = None,  # type: ignore[valid-type]
    scores: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    attention: Path | None = None,
    backend: str = "numpy",
) -> int:
    """Translate text from arguments, a file, or standard input line by line: N lines in, N lines out.

    With --n-best or --scores, print tab-separated columns: LINE (only --n-best), SCORE, TEXT, TOKENS (only --scores).

    Args:
        text: sentences. Without any, standard input is read; at a terminal, each line is answered once it is typed.
        input: a file of sentences, one on each line; - is standard input.
        output: a file for the translations, written once all of them are there; - is standard output.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        options: how translations are searched for.
        scores: print SCORE before each translation, and after it TOKENS with their log-probabilities: "▁a=-0.12".
        attention: write a page, FILE.html, that shows in a browser what each head attends to.
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    search = search_of(options)
    target = None if output is None or str(output) == "-" else output
    _check_files(text, input, target, attention)
    loaded = load_run(run, backend, note)
    require_translator(loaded.model, "translate")
    source = Source(text, input, loaded.model.config.max_length)
    translator = Translator(loaded.model, loaded.tokenizer, source.cut, search=search, failed=source.failed)
    page, ended = AttentionPage(attention, loaded) if attention else None, False
    written = io.BytesIO() if target else sys.stdout.buffer
    try:
        for lines in source.lines():
            ids = translator.encode(lines, source.translated)
            found = translator.hypotheses(lines, ids, source.translated)
            for line, line_ids, hypotheses in zip(lines, ids, found, strict=True):
                source.translated += 1
                for hypothesis in hypotheses:
                    written.write(_row(translator, source.translated, hypothesis, scores).encode() + b"\n")
                if page:
                    page.add(line, line_ids, hypotheses[0].written)
            written.flush()
        ended = True
    finally:  # also when Ctrl-C ends the prompt
        if page and (ended or source.translated):
            page.write(source.translated)
    if target and isinstance(written, io.BytesIO):
        write_atomically(target, written.getvalue())
    return 1 if source.failures else 0


def _check_files(text: Sequence[str], input: Path | None, output: Path | None, attention: Path | None) -> None:
    """Raise `UserError` for files that can't be read or written, or that don't fit together, before any work."""
    if text and input:
        raise UserError(f"translate: text from one place is required; got {text[0]!r} and --input {input}; give one")
    for argument in text:
        if os.path.isfile(argument):
            raise UserError(
                f"translate: text is required, but {argument} is the name of a file; to translate its lines, use "
                f"--input {shlex.quote(argument)}; to translate the name, write it to standard input"
            )
        if _looks_like_a_file(argument):
            print(
                f"tensorlib: there is no file {printable(argument)}; the name is translated as a sentence; "
                "to translate a file, use --input FILE",
                file=sys.stderr,
            )
    if input and not _is_stream(input):
        require_file(str(input), "translate --input")
    if output:
        require_replaceable(output, "translate --output")
        for other in (input, attention):
            if other and output.exists() and other.exists() and output.samefile(other):
                raise UserError(f"translate --output {output}: a file other than {other} is required; name another")
        if attention and output.absolute() == attention.absolute():
            raise UserError(f"translate --output {output}: a file other than the page is required; name another")
    if attention:
        check_page_path(attention)


def _looks_like_a_file(text: str) -> bool:
    """Return whether a text is one word with a separator of folders in it, or with a suffix as in val.de."""
    named = "/" in text or os.sep in text or re.search(r"[\w-]\.[a-z]{2,4}$", text)
    return bool(named) and len(text.split()) == 1


def _is_standard_input(path: Path) -> bool:
    return str(path) in ("-", "/dev/stdin")


def _is_stream(path: Path) -> bool:
    """Return whether the path is standard input, or another open stream, as `<(command)` in a shell is."""
    return _is_standard_input(path) or str(path.parent) == "/dev/fd"


class Source:
    """The lines to translate, how many of them are translated, and messages about them on standard error.

    longest: the model's maximum length.
    """

    def __init__(self, text: Sequence[str], file: Path | None, longest: int) -> None:
        self.translated = self.failures = 0
        self._text, self._longest = text, longest
        self._file = None if file is None or _is_standard_input(file) else file
        self._name = "the arguments" if text else str(self._file or "standard input")
        self._warnings: Counter[str] = Counter()

    def lines(self) -> Iterator[list[str]]:
        """Yield lists of lines: those that have arrived, so that a line is answered before the next one comes."""
        converted = f"{shlex.quote(str(self._file or 'FILE'))} | {command()} translate"
        return stream_lines(self._pieces(), self._name, self._replaced, converted)

    def _pieces(self) -> Iterator[bytes]:
        if self._text:
            yield b"".join(_encoded(text.removesuffix("\n")) for text in self._text)
        elif self._file:
            with self._file.open("rb", buffering=0) as file:
                yield from iter(lambda: file.read(1 << 16), b"")
        elif sys.stdin.isatty():
            yield from map(_encoded, typed_lines())
        else:
            stdin = cast(BufferedReader, sys.stdin.buffer)
            yield from iter(lambda: stdin.read1(1 << 16), b"")

    def _replaced(self, number: int, problem: str) -> None:
        self._warn(number, f"{problem}; read as U+FFFD", "more lines are not UTF-8")

    def cut(self, line: int) -> None:
        """Say that a line, counted from 0, is too long."""
        self._warn(
            line + 1, f"longer than {self._longest} subwords; the rest isn't translated", "more lines are longer"
        )

    def failed(self, line: int) -> None:
        """Say that a line, counted from 0, has no translation. Raise `UserError` if none is written yet."""
        if not self.translated:
            refuse_line(line)
        self.failures += 1
        self._warn(line + 1, "the model's logits are NaN or infinite; the translation is empty", "more lines failed")

    def _warn(self, number: int, problem: str, more: str) -> None:
        self._warnings[more] += 1
        if self._warnings[more] <= MOST_WARNINGS:
            print(f"tensorlib: {self._name}, line {number}: {problem}", file=sys.stderr)
        elif self._warnings[more] == MOST_WARNINGS + 1:
            print(f"tensorlib: {self._name}: {more}; only the first {MOST_WARNINGS} are listed", file=sys.stderr)


def _encoded(text: str) -> bytes:
    """Return a line's bytes as they were given; half a surrogate pair, which UTF-8 lacks, becomes U+FFFD."""
    return re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", text).encode("utf-8", "surrogateescape") + b"\n"


def _row(translator: Translator, line: int, hypothesis: Hypothesis, scores: bool) -> str:
    """Return the text of a translation, or tab-separated columns if the options ask for more than the text."""
    text, numbered = translator.text(hypothesis), translator.search.n_best > 1
    if not (numbered or scores):
        return text
    columns = [f"{hypothesis.score:.4f}", text.replace("\t", " ")]
    if scores:
        pieces = [piece.replace("\t", " ") for piece in translator.tokenizer.target.pieces(hypothesis.written)]
        columns.append(" ".join(f"{p}={x:.4f}" for p, x in zip(pieces, hypothesis.log_probs, strict=True)))
    return "\t".join([str(line), *columns] if numbered else columns)
