"""Windows' refusals on Linux, for a process of its own: `as_windows.install()`, then run what is to be tested.

Windows opens no directories; it neither removes, replaces nor renames what is open, nor a directory with an open file;
renaming replaces nothing; and many functions, signals and modules are missing there. This process refuses the same.
"""

import contextlib
import errno
import importlib
import os
import shutil
import signal
import sys
import types
from pathlib import Path

MISSING_IN_OS = (
    "WNOHANG", "chown", "chroot", "confstr", "ctermid", "fchdir", "fchown", "fdatasync", "fork", "forkpty",
    "fpathconf", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority",
    "getsid", "getuid", "killpg", "lchown", "lockf", "major", "minor", "mkfifo", "mknod", "nice", "openpty",
    "pathconf", "pipe2", "posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "readv",
    "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "setgid", "setpgid",
    "setpriority", "setsid", "setuid", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait",
    "wait3", "wait4",
)  # fmt: skip
MISSING_SIGNALS = (
    "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP", "SIGUSR1",
    "SIGUSR2", "SIGWINCH",
)  # fmt: skip
MISSING_MODULES = (
    "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty",
)  # fmt: skip

LIBRARIES = ("cyclopts", "matplotlib.figure", "portalocker", "sacrebleu", "subprocess", "threadpoolctl", "tqdm")

FILES_OPEN = Path("/proc/self/fd")
SHARING_VIOLATION = 32


def install():
    """Let this process refuse what Windows refuses."""
    for name in LIBRARIES:  # which choose the code for their system when they are imported
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from models.system import terminal
    from tensorlib.arrays import memory

    for name in MISSING_IN_OS:
        if hasattr(os, name):
            delattr(os, name)
    for name in MISSING_SIGNALS:
        delattr(signal, name)
    signal.SIGBREAK = signal.SIGURG  # of Windows alone; SIGURG is ignored by default
    sys.modules.update(dict.fromkeys(MISSING_MODULES))
    memory.ctypes = types.SimpleNamespace(CDLL=_no_library)
    terminal.WINDOWS = True
    shutil._use_fd_functions = False  # which opens directories
    os.open = _open_files_only(os.open)
    os.rename = _replaces_nothing(_not_if_open(os.rename))
    for name in ("replace", "unlink", "remove", "rmdir"):
        setattr(os, name, _not_if_open(getattr(os, name)))


def _no_library(name):
    raise TypeError(f"bad argument type for built-in operation: {name}")


def _open_files_only(really):
    def opened(path, flags, mode=0o777, *, dir_fd=None):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return really(path, flags, mode, dir_fd=dir_fd)

    return opened


def _replaces_nothing(really):
    def rename(source, target):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", source)
        really(source, target)

    return rename


def _not_if_open(really):
    def changed(*paths, **options):
        for path in map(os.path.realpath, paths):
            if any(f"{name}/".startswith(f"{path}/") for name in _open_names()):
                error = PermissionError(errno.EACCES, "The process cannot access the file because it is in use", path)
                error.winerror = SHARING_VIOLATION
                raise error
        return really(*paths, **options)

    return changed


def _open_names():
    """Return the names of the files that this process has open or mapped."""
    names = []
    for link in FILES_OPEN.iterdir():
        try:
            names.append(os.readlink(link))
        except OSError:  # the descriptor of the listing itself
            continue
    maps = Path("/proc/self/maps").read_text().splitlines()
    return names + [line.split(maxsplit=5)[5] for line in maps if "/" in line]
