"""The command line `tensorlib`. Only the called command's file is imported, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.system.terminal import command, is_broken_pipe, prepare_streams, silence

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

__all__ = ["main"]

COMMANDS = {
    "train": "Train a translator on the built-in phrasebook or your own text, or a language model on any text.",
    "translate": "Translate text from arguments, or from standard input line by line.",
    "generate": "Continue text with a language model.",
    "evaluate": "Measure BLEU, chrF, loss and perplexity.",
    "embed": "Train word vectors on plain text, and look up which words are near.",
    "average": "Average the weights of a run's newest checkpoints.",
    "data": "Prepare text to train on, in a new directory.",
    "draw": "Draw the computation graph of a model's loss.",
    "check": "Check the gradients of every op and of whole models; prove that no model sees later tokens.",
    "inspect": "Show what is in a checkpoint, and whether it is undamaged.",
    "info": "Show versions, backends, GPU and BLAS.",
}
"""The command `name` is the function `name` in models/cli/name.py."""

_OUT_OF_MEMORY = "out of memory; use a smaller --batch-tokens, --model.width or --beam"


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
    from models.system.memory import is_out_of_memory
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
        if is_out_of_memory(error):  # of a GPU's libraries, which raise no MemoryError
            return _fail(_OUT_OF_MEMORY, 1)
        if not str(error).startswith("TENSORLIB_"):  # a wrong value of an environment variable is the user's mistake
            raise
        return _fail(str(error), 2)
    except Stopped as stopped:
        return _fail(f"{stopped} {stopped.saved}".rstrip(), 128 + stopped.signal_number)
    except MemoryError:
        return _fail(_OUT_OF_MEMORY, 1)
    except OSError as error:
        if is_broken_pipe(error):
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)


def _parse_problem(error: CycloptsError, argv: list[str]) -> str:
    """Return in one line what the parser rejects. argv: empty for an unknown command, where cyclopts' text is clear."""
    from cyclopts import MissingArgumentError, UnknownOptionError

    if isinstance(error, MissingArgumentError) and error.argument and argv:
        return _missing(error.argument.name, error.argument.token_count()[0], argv)
    unused = getattr(error, "unused_tokens", None)
    if unused and argv:
        repeated = [option for option in unused if option.startswith("--") and argv.count(option) > 1]
        if repeated:
            return f"{repeated[0]} is given twice."
    token = error.token if isinstance(error, UnknownOptionError) else None
    if unused:  # an unknown option explains the arguments around it
        given = next((word for word in unused if word.startswith("-")), unused[0])
    else:
        given = (token.keyword or token.value) if token else ""
    if argv and given.startswith("-"):
        name = given.partition("=")[0]
        known = name in _options(argv[0])  # as in --dry-run=3
        if known and name == given and _opposite(name) in argv:
            return f"{name} and {_opposite(name)} contradict each other; give one of them."
        return f"{name} takes no value." if known else f"Unknown option: {name}.{_suggestion(given, argv[0])}"
    if unused and argv:
        return _unexpected(unused[0], argv)
    return " ".join(str(error).split())


def _missing(name: str, count: int, argv: list[str]) -> str:
    """Return what the option or argument `name`, which takes `count` values, lacks."""
    if not name.startswith("-"):
        return f"{name} is required."
    where = argv.index(name) + 1 if name in argv else len(argv)
    values = argv[where : where + count]
    needed = "a value" if count == 1 else f"{count} values"
    if any(value.startswith("-") for value in values) and "," not in values[0]:
        return f"{name} needs {needed} that {'does' if count == 1 else 'do'} not begin with a dash."
    return f"{name} needs {needed}{', with a space between them' if count > 1 else ''}."


def _unexpected(given: str, argv: list[str]) -> str:
    """Return why `given`, which follows no option that takes a value, is unexpected, and what to do."""
    options, places = _options(argv[0]), _places(argv[0])
    before = argv[argv.index(given) - 1] if given in argv else ""
    if before in options and given.lower() in ("true", "false", "yes", "no", "on", "off", "0", "1"):
        opposite = _opposite(before)
        return f"{before} takes no value{f'; its opposite is {opposite}' if opposite in options else ''}."
    if places:
        takes = "one argument" if len(places) == 1 else f"{len(places)} arguments"
        return f"unexpected argument {given}; {argv[0]} takes {takes}, {' and '.join(places)}."
    if not options:
        return f"unexpected argument {given}; {argv[0]} takes none."
    if "--resume" in argv:
        return f"unexpected argument {given}; did you mean --out {given}?"
    if "--run" in options and ("--source" not in options or os.path.isdir(given) or given.endswith(".safetensors")):
        return f"unexpected argument {given}; did you mean --run {given}?"
    return f"unexpected argument {given}; a file needs an option that names it."


def _opposite(option: str) -> str:
    """Return --model.no-tie-embeddings for --model.tie-embeddings, and the other way round."""
    section, dot, last = option[2:].rpartition(".")
    return f"--{section}{dot}{last[3:] if last.startswith('no-') else f'no-{last}'}"


def _options(name: str) -> list[str]:
    """Return the options of a command, without those that only begin the names of others, such as --model."""
    options = {n for argument in _app([name])[name].assemble_argument_collection() for n in argument.names}
    return sorted(n for n in options if n.startswith("--") and not any(m.startswith(f"{n}.") for m in options))


def _places(name: str) -> list[str]:
    """Return the names of the arguments that a command takes without an option, in capitals."""
    arguments = _app([name])[name].assemble_argument_collection()
    return [argument.names[-1].lstrip("-").upper() for argument in arguments if argument.index is not None]


def _suggestion(given: str, name: str) -> str:
    """Return what is meant by an option that the command does not have, as a sentence with a space before it."""
    from models.runs.other_names import close_option, our_fact, our_option

    usable = _options(name)
    if name in ("translate", "generate") and (" " in given or given == "-"):
        return " A text that begins with a dash follows the word --."
    if (place := given.lstrip("-").upper()) in _places(name):
        return f" {place} is given without an option."
    if ours := our_option(given, usable):
        return f" It is {ours.replace('DIR or FILE', 'DIR') if name == 'average' else ours} here."
    if fact := our_fact(given, usable):
        return f" {fact}"
    close = close_option(given, usable)
    return f" Did you mean {close}?" if close else ""


def _app(called: Sequence[str]) -> App:
    """Return the parser. The called command's help is its whole docstring; the other commands are not imported."""
    from cyclopts import App, Parameter

    app = App(
        name="tensorlib",
        help="Train a model to translate, and use it.",
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
