"""The command `tensorlib`. Commands are imported when they are called, so that `--help` comes at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from models.system.terminal import command, prepare_streams, silence

__all__ = ["main"]

COMMANDS = {
    "train": ("train:train", "Train a translator: on the built-in phrasebook, or on your own text."),
    "translate": ("translate:translate", "Translate text from arguments, or from standard input line by line."),
    "evaluate": ("translate:evaluate", "Measure BLEU, chrF, loss and perplexity."),
    "average": ("average:average", "Average the weights of a run's newest checkpoints."),
    "data": ("data:data", "Prepare text to train on, in a new directory."),
    "draw": ("inspection:draw", "Draw the computation graph of a model's loss."),
    "check": ("inspection:check", "Check the gradients of every op and of the whole Transformer."),
    "inspect": ("inspection:inspect", "Show what is in a checkpoint, and whether it is whole."),
    "info": ("inspection:info", "Show versions, backends, GPU, and what does the matrix products."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0: done. 1: a check failed, or the system did (a full disk). 2: a mistake by the user. 128 + n: signal n.
    """
    prepare_streams()
    try:
        status = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _say("stopped by SIGINT", 130)
    except BrokenPipeError:
        # Whoever read our output has left, as `head` does. Python would complain once more when it closes the pipe.
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
        return _say(f"{_words(error, argv if known else [])} See `{' '.join([command(), *known, '--help'])}`.", 2)
    except UserError as error:
        return _say(str(error), 2)
    except RuntimeError as error:
        if not str(error).startswith("TENSORLIB_"):  # a variable of the environment is the user's too
            raise
        return _say(str(error), 2)
    except Stopped as stopped:
        return _say(f"{stopped} {stopped.saved}".rstrip(), 128 + stopped.signal_number)
    except BrokenPipeError:
        raise
    except MemoryError:
        return _say("out of memory; a smaller --batch-tokens, --model.width or --beam takes less", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _say(f"{where}{error.strerror or error}", 1)


def _words(error: Any, argv: list[str]) -> str:
    """Say in one line what the parser found wrong; argv is empty where the command is none, which it words itself."""
    unused = getattr(error, "unused_tokens", None)
    if unused and argv:
        twice = [option for option in unused if option.startswith("--") and argv.count(option) > 1]
        return f"{twice[0]} is given twice." if twice else f"unexpected argument {unused[0]}."
    return " ".join(str(error).split())


def _app(called: Sequence[str]) -> Any:
    """Return the parser. The command that is called shows its whole docstring, the others wait unimported."""
    from cyclopts import App, Parameter

    app = App(
        name="tensorlib",
        help="Train a Transformer to translate, and use it.",
        version=_version,
        help_format="plaintext",
        default_parameter=Parameter(negative_iterable=()),
        suppress_keyboard_interrupt=False,  # it would end without a word
    )
    for name, (target, text) in COMMANDS.items():
        app.command(f"models.cli.{target}", name=name, help=None if name in called else text)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("tensorlib")


def _say(text: str, status: int) -> int:
    print(f"tensorlib: {text}", file=sys.stderr, flush=True)
    return status
