"""Rendering: a picture's text is given to Graphviz or graphviz-pure, which never runs longer than its caller.

The renderer does not run under the caller but under this same file, started as a program. Only the caller can close the
program's standard input, and the system closes it when the caller dies, however it dies. Then the program ends the
renderer. This file imports only the standard library, because the program starts without anything else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading

__all__ = ["find_renderer", "render"]


def find_renderer() -> tuple[str, str] | None:
    """Return name and command of the renderer: `dot` if it is installed, or graphviz-pure; None without either."""
    if command := shutil.which("dot"):
        return "dot", command
    beside_python = sysconfig.get_path("scripts")  # not on the PATH unless the virtual environment is activated
    if command := shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside_python):
        return "graphviz-pure", command
    return None


def render(text: str, form: str, command: str, seconds: float) -> bytes:
    """Return the picture of `text`, which is in Graphviz's language.

    Raises RuntimeError if the renderer fails, TimeoutError if it is not done after `seconds`.
    """
    source = text.encode()
    program = [sys.executable, "-I", "-S", __file__, command, "-Kdot", f"-T{form}"]
    with tempfile.TemporaryFile() as picture, tempfile.TemporaryFile() as complaints:
        try:
            # Leaving this block closes standard input, which ends the renderer, and waits.
            with subprocess.Popen(
                program, stdin=subprocess.PIPE, stdout=picture, stderr=complaints, start_new_session=True
            ) as process:
                assert process.stdin is not None
                process.stdin.write(b"%d\n" % len(source) + source)
                process.stdin.flush()
                status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{command} was not done after {round(seconds, 1):g} s") from None
        picture.seek(0)
        complaints.seek(0)
        if status != 0:
            message = complaints.readline().decode(errors="replace").strip()
            raise RuntimeError(f"draw: {command} failed with status {status}: {message}")
        return picture.read()


def _main(command: list[str]) -> None:
    """Run `command` on the text from standard input until it is done or standard input is closed."""
    source = sys.stdin.buffer.read(int(sys.stdin.buffer.readline()))
    try:
        renderer = subprocess.Popen(command, stdin=subprocess.PIPE)
    except OSError as error:
        sys.exit(str(error))
    threading.Thread(target=_end_with_caller, args=(renderer,), daemon=True).start()
    renderer.communicate(source)
    os._exit(renderer.returncode % 256)  # without waiting for the thread


def _end_with_caller(renderer: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the caller closes it
    if hasattr(os, "killpg") and hasattr(signal, "SIGKILL"):  # not on Windows
        os.killpg(0, signal.SIGKILL)  # this program and whatever it started
    renderer.kill()
    os._exit(1)


if __name__ == "__main__":
    _main(sys.argv[1:])
