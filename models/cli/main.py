"""The command line `tensorlib`. Only the called command's file is imported, so that `--help` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.system.terminal import command, is_broken_pipe, prepare_streams, silence

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

__all__ = ["main"]

COMMANDS = {
    "train": "Train a translator: on the built-in phrasebook, or on your own text.",
    "translate": "Translate text from arguments, or from standard input line by line.",
    "evaluate": "Measure BLEU, chrF, loss and perplexity.",
    "average": "Average the weights of a run's newest checkpoints.",
    "data": "Prepare text to train on, in a new directory.",
    "draw": "Draw the computation graph of a model's loss.",
    "check": "Check the gradients of every op and of the whole Transformer.",
    "inspect": "Show what is in a checkpoint, and whether it is undamaged.",
    "info": "Show versions, backends, GPU and BLAS.",
}
"""The command `name` is the function `name` in models/cli/name.py."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: success. 1: a failed check, or a failure of the system, such as a full disk. 2: a mistake by the user. 128 + n:
    stopped by signal n.
    """
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("stopped by SIGINT", 130)
    except OSError as error:
        if not is_broken_pipe(error):
            return _fail(error.strerror or str(error), 1)
        # The reader of our output has quit, as `head` does. Python would report it again when it closes the pipe.
        silence(sys.stdout)
        return 141


def _run(argv: list[str]) -> int:
    from cyclopts import CycloptsError

    from models.system.errors import UserError
    from models.system.stopping import Stopped

    try:
        return _app(argv[:1])(argv, print_error=False, exit_on_error=False, result_action="return_value") or 0
    except CycloptsError as error:
        known = [name for name in argv[:1] if name in COMMANDS]
        help_command = " ".join([command(), *known, "--help"])
        return _fail(f"{_parse_problem(error, argv if known else [])} See `{help_command}`.", 2)
    except UserError as error:
        return _fail(str(error), 2)
    except RuntimeError as error:
        if not str(error).startswith("TENSORLIB_"):  # a wrong value of an environment variable is the user's mistake
            raise
        return _fail(str(error), 2)
    except Stopped as stopped:
        return _fail(f"{stopped} {stopped.saved}".rstrip(), 128 + stopped.signal_number)
    except MemoryError:
        return _fail("out of memory; use a smaller --batch-tokens, --model.width or --beam", 1)
    except OSError as error:
        if is_broken_pipe(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)


def _parse_problem(error: CycloptsError, argv: list[str]) -> str:
    """Return in one line what the parser rejects. argv: empty for an unknown command, where cyclopts' text is clear."""
    from cyclopts import MissingArgumentError, UnknownOptionError

    if isinstance(error, MissingArgumentError) and error.argument and argv:
        count, _ = error.argument.token_count()
        needed = "a value that does" if count == 1 else f"{count} values that do"
        return f"{error.argument.name} needs {needed} not begin with a dash."
    unused = getattr(error, "unused_tokens", None)
    if unused and argv:
        repeated = [option for option in unused if option.startswith("--") and argv.count(option) > 1]
        if repeated:
            return f"{repeated[0]} is given twice."
    token = error.token if isinstance(error, UnknownOptionError) else None
    given = unused[0] if unused else (token.keyword or token.value) if token else ""
    if argv and given.startswith("-"):
        name = given.partition("=")[0]
        known = name in _options(argv[0])  # as in --dry-run=3
        return f"{name} takes no value." if known else f"Unknown option: {name}.{_suggestion(given, argv[0])}"
    if unused and argv:
        remedy = f"did you mean --out {given}?" if "--resume" in argv else "a file needs an option that names it."
        return f"unexpected argument {given}; {remedy}"
    return " ".join(str(error).split())


def _options(name: str) -> list[str]:
    """Return the options of a command, without those that only begin the names of others, such as --model."""
    options = {n for argument in _app([name])[name].assemble_argument_collection() for n in argument.names}
    return sorted(n for n in options if n.startswith("--") and not any(m.startswith(f"{n}.") for m in options))


def _suggestion(given: str, name: str) -> str:
    """Return what is meant by an option that the command does not have, as a sentence with a space before it."""
    from models.runs.other_names import close_option, our_fact, our_option

    usable = _options(name)
    if ours := our_option(given, usable):
        return f" It is {ours} here."
    if fact := our_fact(given):
        return f" {fact}"
    close = close_option(given, usable)
    return f" Did you mean {close}?" if close else ""


def _app(called: Sequence[str]) -> App:
    """Return the parser. The called command's help is its whole docstring; the other commands are not imported."""
    from cyclopts import App, Parameter

    app = App(
        name="tensorlib",
        help="Train a Transformer to translate, and use it.",
        version=_version,
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,  # cyclopts would exit without a message
    )
    for name, text in COMMANDS.items():
        app.command(f"models.cli.{name}:{name}", name=name, help=None if name in called else text)
    return app


def _version() -> str:
    import tensorlib

    return tensorlib.__version__


def _fail(message: str, status: int) -> int:
    print(f"tensorlib: {message}", file=sys.stderr, flush=True)
    return status
