"""The exceptions for mistakes by the user, as opposed to errors in the program."""

from models.system.terminal import printable

__all__ = ["CheckpointError", "UserError"]


class UserError(Exception):
    """A mistake by the user, described in one line: `operation: what is required; what was given; what to do`.

    The command line prints it to standard error and exits with status 2, without a traceback.
    """

    def __str__(self) -> str:
        return printable(super().__str__())  # the message may quote a file name, which may contain any character


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, forged, or of another model: `checkpoint FILE: what is wrong with it`."""
