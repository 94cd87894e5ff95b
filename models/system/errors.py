"""The one exception that stands for a mistake by the user rather than by the program."""

from models.system.terminal import printable

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake by the user, told in one line: `operation: what is required; what was given; what to do`.

    The command line prints it to standard error and exits with status 2, without a traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())  # a file name may hold anything
