"""`tensorlib translate`: translate each line of text, from arguments or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Parameter

from models.cli.options import SearchOptions, search_of
from models.cli.pages.attention import AttentionPage, check_page_path
from models.cli.prompt import typed_lines
from models.decoding.hypothesis import Hypothesis
from models.evaluation.translator import Translator
from models.runs.loading import load_run

__all__ = ["translate"]


def translate(
    *text: Annotated[str, Parameter(allow_leading_hyphen=False)],
    run: Path | None = None,
    options: SearchOptions | None = None,  # type: ignore[valid-type]
    scores: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    attention: Path | None = None,
    backend: str = "numpy",
) -> int:
    """Translate text from arguments, or from standard input line by line: N lines in, N lines out.

    With --n-best or --scores, print tab-separated columns: LINE (only --n-best), SCORE, TEXT, TOKENS (only --scores).

    Args:
        text: sentences. Without any, standard input is read; at a terminal, each line is answered once it is typed.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        options: how translations are searched for.
        scores: print SCORE before each translation, and after it TOKENS with their log-probabilities: "▁a=-0.12".
        attention: write a page, FILE.html, that shows in a browser what each head attends to.
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    search = search_of(options)
    if attention:
        check_page_path(attention)
    loaded = load_run(run, backend)

    def warn_cut(line: int) -> None:
        longest = loaded.model.config.max_length
        print(f"tensorlib: line {line + 1}: longer than {longest} subwords; the rest isn't translated", file=sys.stderr)

    translator = Translator(loaded.model, loaded.tokenizer, warn_cut, search=search)
    translated, page = 0, AttentionPage(attention, loaded) if attention else None
    try:
        for lines in [list(text)] if text else typed_lines() if sys.stdin.isatty() else _piped_lines():
            sources = translator.encode(lines, translated)
            found = translator.hypotheses(lines, sources, translated)
            for line, source, hypotheses in zip(lines, sources, found, strict=True):
                translated += 1
                for hypothesis in hypotheses:
                    sys.stdout.buffer.write(_row(translator, translated, hypothesis, scores).encode() + b"\n")
                if page:
                    page.add(line, source, hypotheses[0].written)
            sys.stdout.buffer.flush()
    finally:  # also when Ctrl-C ends the prompt
        if page:
            page.write(translated)
    return 0


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


def _piped_lines(most: int = 256) -> Iterator[list[str]]:
    """Yield lists of the lines that have arrived on standard input, each of at most `most` lines.

    A single line is thus translated before the next one arrives. Only a newline ends a line. Bytes that are not UTF-8
    become U+FFFD, so that no line is lost.
    """
    stdin = cast(BufferedReader, sys.stdin.buffer)
    unfinished: list[bytes] = []  # pieces of the last line; joined once, because a line may be very long
    while data := stdin.read1(1 << 16):
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*unfinished, ended[0]])
            unfinished = []
        unfinished.append(rest)
        for start in range(0, len(ended), most):
            yield [_decoded(line) for line in ended[start : start + most]]
    if last := b"".join(unfinished):
        yield [_decoded(last)]


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")
