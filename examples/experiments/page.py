"""What all experiments share: results that survive an interruption, and a page that shows them.

An experiment measures its results one by one with `Results`, which stores each as soon as it is known, and then writes
a `Page`: one HTML file with text, tables and plots, which needs no network and no other file.
"""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import tensorlib as tl
from models.system.errors import UserError
from models.system.machine import machine
from tensorlib.exchange.safetensors import write_atomically
from tensorlib.messages import plural

__all__ = ["Page", "Results", "arguments", "figure", "run", "whole"]

_STYLE = """
:root { color-scheme: light dark; --faint: #8884; --muted: #777 }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }
h1 { line-height: 1.2 } h2 { margin-top: 2.5rem }
.findings { border-left: 4px solid #3b7dd8; padding: .2rem 0 .2rem 1rem; font-size: 1.05rem }
.findings ul { margin: 0; padding-left: 1.2rem } .wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--faint); text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left; padding-left: 0 } th { border-bottom-width: 2px }
.text th, .text td { text-align: left }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto; background: white; border-radius: 4px }
figcaption, footer { color: var(--muted); font-size: .9rem } pre, code { font-family: ui-monospace, monospace }
footer { margin-top: 3rem; border-top: 1px solid var(--faint); padding-top: .5rem }
"""


class Results:
    """Results by name, in a file of JSON lines. An experiment that is run again measures only those that are missing.

    The first line has the settings, with which all results were measured. Other settings are refused.

    >>> results = Results(Path("results.jsonl"), {"width": 128})
    >>> results.measure("lstm, length 8", lambda: {"seconds": 0.012})["seconds"]
    0.012
    >>> Results(Path("results.jsonl"), {"width": 128}).measure("lstm, length 8", lambda: 1 / 0)["seconds"]
    0.012
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.lines = [json.dumps({"settings": settings}, default=str) + "\n"]
        self.values: dict[str, Any] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemExit(
                f"{path.parent}: a directory for the results is required; {error.strerror}; choose another --out"
            ) from None
        if path.exists():
            first, *rest = self._stored()
            if first != self.lines[0]:
                raise SystemExit(
                    f"{path}: results with the same settings are required; these were measured with {first.strip()}, "
                    f"now {self.lines[0].strip()}; choose another --out"
                )
            self.lines += rest
            self.values = {entry["name"]: entry["value"] for entry in map(json.loads, rest)}

    def _stored(self) -> list[str]:
        """Return the lines of the file, whose values are then known to be readable."""
        try:
            # Not str.splitlines, which splits at U+2028 and U+0085 too; json.dumps writes these as they are.
            lines = [line + "\n" for line in self.path.read_bytes().decode().removesuffix("\n").split("\n")]
            if "settings" in json.loads(lines[0]) and all(
                {"name", "value"} <= {*json.loads(line)} for line in lines[1:]
            ):
                return lines
        except (ValueError, TypeError, RecursionError):  # not JSON or not UTF-8, or a number in place of an object
            pass
        raise SystemExit(f"{self.path}: results as an experiment writes them are required; the file is damaged; "
                         "delete it, or choose another --out")  # fmt: skip

    def measure(self, name: str, function: Callable[[], Any]) -> Any:
        """Return the result of this name; if it is not known yet, it is what `function` returns, as JSON."""
        if name not in self.values:
            print(f"{name} ...", flush=True)
            line = json.dumps({"name": name, "value": function()}, ensure_ascii=False)
            self.values[name] = json.loads(line)["value"]
            self.lines.append(line + "\n")
            write_atomically(self.path, "".join(self.lines).encode())
        return self.values[name]


class Page:
    """A self-contained page: findings first, then text, tables and figures in the order of the calls.

    >>> page = Page("Two ways to add")
    >>> page.findings(["Both give 2."])
    >>> page.table(["way", "sum"], [["1 + 1", 2]])
    >>> page.write(Path("page.html"))
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []

    def findings(self, sentences: Iterable[str]) -> None:
        """Add what was found, which is the beginning of the page."""
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        self.parts.append(f'<div class="findings"><ul>{items}</ul></div>')

    def heading(self, text: str) -> None:
        """Add a heading."""
        self.parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add paragraphs, which blank lines separate."""
        self.parts += [f"<p>{escape(' '.join(part.split()))}</p>" for part in text.split("\n\n")]

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Any]], text: bool = False) -> None:
        """Add a table: of numbers, which are aligned on the right, or of `text`."""
        cells = [[str(cell) for cell in row] for row in rows]
        lines = ["".join(f"<th>{escape(head)}</th>" for head in heads)]
        lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in cells]
        self.parts.append(
            f'<div class="wide"><table{" class=text" * text}>'
            + "".join(f"<tr>{line}</tr>\n" for line in lines)
            + "</table></div>"
        )

    def figure(self, figure: Any, caption: str) -> None:
        """Add a Matplotlib figure as SVG."""
        import matplotlib as mpl

        buffer = io.StringIO()
        # The browser draws the text, for it has more fonts; the hash keeps ids the same from run to run.
        with mpl.rc_context({"svg.hashsalt": "experiment", "svg.fonttype": "none"}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(buffer, format="svg", metadata={"Date": None})
        svg = buffer.getvalue()
        self.parts.append(f"<figure>{svg[svg.index('<svg') :]}<figcaption>{escape(caption)}</figcaption></figure>")

    def write(self, path: Path) -> None:
        """Write the page, with the command that made it and the machine."""
        command = shlex.join(["python", f"examples/experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])
        where = f"{machine()}; {plural(tl.thread_count(), 'thread')}"
        body = "\n".join(self.parts)
        page = (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
            f"<body><h1>{escape(self.title)}</h1>\n{body}\n"
            f"<footer><p>Made by <code>{escape(command)}</code> on {escape(where)}.</p></footer></body></html>\n"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())
        print(f"wrote {path}")


def figure(columns: int = 1, height: float = 3.6, sharey: bool = False) -> tuple[Any, list[Any]]:
    """Return a Matplotlib figure, and the axes of this many plots side by side."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    look = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3}
    with mpl.rc_context(look):
        made = Figure(figsize=(8.5, height), layout="constrained")
        return made, list(made.subplots(1, columns, squeeze=False, sharey=sharey)[0])


def arguments(description: str | None, name: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all experiments have; `name` is that of the default directory."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments") / name, help="where all results are kept")
    return parser


def whole(least: int, multiple: int = 1) -> Callable[[str], int]:
    """Return a function that reads an option's whole number, of at least `least` and a multiple of `multiple`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or number % multiple:
            several = f" that is a multiple of {multiple}" if multiple > 1 else ""
            raise argparse.ArgumentTypeError(f"a whole number of at least {least}{several} is required; got {text!r}")
        return number

    return read


def run(main: Callable[[], None]) -> None:
    """Run an experiment. A mistake in its options or files ends it with status 2 and one line, without a traceback."""
    try:
        main()
    except (UserError, FloatingPointError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted; run the same command again to measure what is missing", file=sys.stderr)
        raise SystemExit(130) from None
