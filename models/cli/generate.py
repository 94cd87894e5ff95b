"""`tensorlib generate`: text from a language model, which continues each prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, cast

from cyclopts import Parameter

from models.architectures.language import LanguageModel
from models.cli.display import note
from models.cli.options import Whole
from models.cli.prompt import typed_lines
from models.decoding.settings import Search
from models.evaluation.text_model import SAMPLED, TextModel
from models.runs.loading import load_run
from models.system.errors import UserError
from models.system.terminal import command
from models.text.lines import stream_lines

__all__ = ["generate"]


def generate(
    *prompt: Annotated[str, Parameter(allow_leading_hyphen=False)],
    run: Path | None = None,
    max_length: Whole = SAMPLED.max_length,
    min_length: Whole = 0,
    temperature: float | None = None,
    top_k: Whole | None = None,
    top_p: float | None = None,
    seed: Whole | None = None,
    beam: Whole | None = None,
    line: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    backend: str = "numpy",
) -> int:
    """Continue prompts with a language model: from arguments, or from standard input line by line.

    Each text is printed with its prompt, and N prompts give N texts. A text may have several lines, so a blank line
    separates two of them; with --line each has one line.

    Args:
        prompt: the beginnings of texts; "" begins anywhere. Without any, each line of standard input is one.
        run: the run's directory, or one checkpoint in it. [the newest in runs/, its best weights]
        max_length: how many subwords to add, at most.
        min_length: how many subwords to add, at least.
        temperature: divides the logits. Below 1, likely tokens are drawn more often; above 1, less. [0.8]
        top_k: draw from the k likeliest tokens; 0 means all tokens. [0]
        top_p: draw from the fewest tokens that together have at least this probability. [1.0]
        seed: different seeds draw different texts, equal seeds the same ones. [0]
        beam: search for the likeliest text instead of drawing, and keep this many candidates; 1 is greedy.
        line: end each text with its first line, so that N lines in give N lines out.
        backend: numpy (CPU) or cupy (a CUDA GPU).
    """
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    search = _search(beam, drawing, max_length, min_length)
    loaded = load_run(run, backend, note)
    if not isinstance(loaded.model, LanguageModel):
        raise UserError(
            f"generate: a language model is required; the run of {loaded.path} translates; use `{command()} translate`"
        )
    longest = loaded.model.config.max_length

    def cut(number: int) -> None:
        note(f"prompt {number + 1}: longer than the context of {longest} subwords; only its end is read")

    model, written = TextModel(loaded.model, loaded.tokenizer, search, cut), 0
    for prompts in [list(prompt)] if prompt else _lines():
        for beginning, text in zip(prompts, model.generate(prompts, written), strict=True):
            shown = _first_line(beginning.rstrip(" "), text) if line else "\n" * bool(written) + text
            sys.stdout.buffer.write(shown.encode() + b"\n")
            written += 1
        sys.stdout.buffer.flush()
    return 0


def _search(beam: int | None, drawing: dict[str, Any], max_length: int, min_length: int) -> Search:
    """Return the checked settings. Errors: `UserError` for one that is impossible or contradicts another."""
    given = {name: value for name, value in drawing.items() if value is not None}
    if beam is not None and given:
        raise UserError(
            f"generate: --beam searches and draws nothing; got --{next(iter(given)).replace('_', '-')} too; leave one "
            "of them out"
        )
    if max_length < 1:
        raise UserError(f"generate: --max-length must be at least 1, got {max_length}")
    search = Search(max_length=max_length, min_length=min_length, beam=beam)
    if beam is None:
        search = replace(search, sample=True, **{"temperature": SAMPLED.temperature, **given})
    search.check()
    return search


def _lines() -> Iterator[list[str]]:
    """Yield lists of lines of standard input: those that have arrived; bytes that are not UTF-8 become U+FFFD."""
    name = "standard input"

    def replaced(number: int, problem: str) -> None:
        note(f"{name}, line {number}: {problem}; read as U+FFFD")

    def pieces() -> Iterator[bytes]:
        if sys.stdin.isatty():
            yield from (
                typed.encode("utf-8", "surrogateescape") + b"\n" for typed in typed_lines("the beginning of a text")
            )
        else:
            stdin = cast(BufferedReader, sys.stdin.buffer)
            yield from iter(lambda: stdin.read1(1 << 16), b"")

    return stream_lines(pieces(), name, replaced, f"FILE | {command()} generate")


def _first_line(prompt: str, text: str) -> str:
    """Return the text up to the first line end after the prompt with which it begins."""
    return text[: len(prompt)] + text[len(prompt) :].partition("\n")[0]
