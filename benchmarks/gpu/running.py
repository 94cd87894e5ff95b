"""Runs the parts one after another, each in a process group that is ended at its time limit; keeps what each found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from gpu.parts import Part

__all__ = ["Process", "run_parts"]

Found = dict[str, dict[str, Any]]


class Process:
    """The process of a part, its log, and the file of its rows."""

    def __init__(self, part: Part, settings: Mapping[str, Any], folder: Path) -> None:
        self.part, self.late = part, False
        self.found: dict[str, Any] = {}
        self.rows_file, self.log = folder / "parts" / f"{part.name}.jsonl", folder / "parts" / f"{part.name}.log"
        self.rows_file.parent.mkdir(parents=True, exist_ok=True)
        self.rows_file.write_text("")
        command = [sys.executable, "-m", "gpu.part", part.target, json.dumps(settings), str(self.rows_file)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True, process_group=0
            )

    def lines(self) -> list[dict[str, Any]]:
        """Return what the part has written; a last line that is not whole is left out."""
        whole = []
        for line in self.rows_file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                whole.append(json.loads(line))
        return whole

    def ready(self) -> bool:
        """Return whether the part waits for its turn, or has ended."""
        return self.process.poll() is not None or any("ready" in line for line in self.lines())

    def turn(self) -> None:
        """Tell the part that it is its turn."""
        with suppress(OSError, ValueError):  # it has ended
            assert self.process.stdin
            self.process.stdin.write("go\n")
            self.process.stdin.close()

    def finish(self, seconds: float) -> None:
        """Wait for the end, or end the part after these seconds; `found` then has its state and its rows."""
        began = time.monotonic()
        try:
            status = self.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            status = None
        except BaseException as error:  # Ctrl-C, or a signal that ends the run
            self.end()
            self.found = {**self._known(began, seconds), "state": "interrupted", "error": type(error).__name__}
            raise
        self.end()
        self.found = {**self._known(began, seconds), **self._outcome(status, seconds)}

    def _known(self, began: float, seconds: float) -> dict[str, Any]:
        rows = [line for line in self.lines() if "case" in line]
        return {"seconds": round(time.monotonic() - began, 1), "limit": round(seconds, 1), "rows": rows}

    def _outcome(self, status: int | None, seconds: float) -> dict[str, Any]:
        if self.late:
            return {"state": "out of time", "error": f"not ready in time; see {self.log.name}"}
        if status is None:
            return {"state": "out of time", "error": f"stopped after {seconds:.0f} s; see {self.log.name}"}
        if status:
            reason = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            return {"state": "failed", "error": f"{reason}; see {self.log.name}"}
        return {"state": "finished", "error": None}

    def wait(self, seconds: float) -> int:
        """Return the exit status, when the process ends by itself."""
        return self.process.wait(seconds)

    def end(self) -> None:
        """End all processes of the part."""
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            with suppress(OSError):
                self.process.stdin.close()


def run_parts(
    parts: Sequence[Part],
    settings: Mapping[str, Any],
    folder: Path,
    *,
    every: bool = False,
    ready: float = 120,
    total: float = float("inf"),
    after: Callable[[Found], object] = lambda found: None,
) -> Found:
    """Run the parts and return for each its state, seconds and rows; call `after` after each with what is known.

    The parts that start early prepare while the first one runs. Before the second takes its turn, all have to be ready;
    one that is not, `ready` seconds after the start, is ended.
    """
    began, found = time.monotonic(), Found()
    with ExitStack() as stack:

        def start(part: Part) -> Process:
            limit = part.whole if every else part.limit
            process = Process(part, {**settings, "limit": limit, "ready": ready - 5}, folder)
            stack.callback(process.end)
            return process

        started = {part.name: start(part) for part in parts if part.early}
        for i, part in enumerate(parts):
            if i == 1 or (i == 0 and part.early):
                _wait_for_all(started.values(), began + ready)
            left = began + total - time.monotonic()
            if left < 1:
                found[part.name] = {"state": "not run", "seconds": 0, "limit": 0, "rows": [], "error": "no time left"}
            else:
                print(f"{time.monotonic() - began:5.0f} s  {part.name}", flush=True)
                process = started.get(part.name) or start(part)
                process.turn()
                try:
                    process.finish(min(part.whole if every else part.limit, left))
                finally:
                    found[part.name] = process.found
                    after(found)
                continue
            after(found)
    return found


def _wait_for_all(processes: Iterable[Process], deadline: float) -> None:
    """Wait until each process is ready; end those that are not ready at the deadline."""
    for process in processes:
        while not process.ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not process.ready():
            process.late = True
            process.end()
