"""The one exception that stands for a mistake by the user rather than by the program."""

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake by the user, told in one line: `operation: what is required; what was given; what to do`.

    The command line prints it to standard error and exits with status 2, without a traceback.
    """

    def __str__(self) -> str:
        # A file name may hold a newline, a terminal escape or undecodable bytes. Written out, they can't
        # break the promise of one line, drive the terminal, or make the printing itself fail.
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in super().__str__()
        )
