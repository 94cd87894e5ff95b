"""The sides that are compared, each in its own process: started together, then timed in turn."""

from __future__ import annotations

import json
import math
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from gpu.part import Turn

__all__ = ["Broken", "Side", "Sides", "interleaved"]

TURN = 0.2  # seconds of steps in a turn
MOST = 100  # calls in a turn


class Broken(Exception):
    """A side cannot run a step; `why` is {"failed": reason} or {"missing": reason}."""

    def __init__(self, why: Mapping[str, str]) -> None:
        super().__init__(*why.values())
        self.why = dict(why)


class Side:
    """A process of `worker.py`. It starts at once; `ready` waits until it has warmed up."""

    def __init__(self, target: str, arguments: Mapping[str, Any]) -> None:
        self.target, self.library, self.began = target, "", time.monotonic()
        self.why: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.broken: dict[str, dict[str, str]] = {}
        command, pipe = [sys.executable, "-m", "gpu.worker", target, json.dumps(arguments)], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _answer(self, seconds: float, late: str = "") -> dict[str, Any]:
        try:
            line = self.lines.get(timeout=max(seconds, 0.01))
        except queue.Empty:
            self._give_up({"failed": late or f"no answer after {max(seconds, 0):.0f} s"})
        if not line:
            self._give_up({"failed": f"the process ended, status {self.process.wait()}"})
        return json.loads(line)

    def _give_up(self, why: dict[str, str]) -> Any:
        self.why = why
        self.close()
        raise Broken(why)

    def ready(self, deadline: float) -> None:
        """Wait until the side has warmed up; it is closed if it cannot run at all or is not ready at the deadline."""
        with suppress(Broken):
            late = f"not ready after {deadline - self.began:.0f} s"
            answer = self._answer(deadline - time.monotonic(), late)
            if "ready" not in answer:
                self._give_up(answer)
            self.library, self.seconds, self.broken = answer["ready"], answer["seconds"], answer["broken"]

    def ask(self, request: Mapping[str, Any], seconds: float = 60) -> dict[str, Any]:
        """Return the answer. Raises Broken if the side or this step of it does not work."""
        name = next(str(request[key]) for key in ("run", "peak", "taken") if key in request)
        if self.why or name in self.broken:
            raise Broken(self.why or self.broken[name])
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            self._give_up({"failed": f"the process ended, status {self.process.wait()}"})
        answer = self._answer(seconds)
        if "failed" in answer or "missing" in answer:
            raise Broken(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


class Sides:
    """Processes by target and arguments, each started once, although several cases use it."""

    def __init__(self) -> None:
        self.started: dict[str, Side] = {}

    def side(self, target: str, arguments: Mapping[str, Any]) -> Side:
        """Start a side, or return the one that has been started."""
        key = json.dumps([target, arguments])
        if key not in self.started:
            self.started[key] = Side(target, arguments)
        return self.started[key]

    def ready(self, seconds: float) -> None:
        """Wait until all sides have warmed up; after these seconds, those that have not are given up."""
        deadline = time.monotonic() + seconds
        for side in self.started.values():
            side.ready(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for side in self.started.values():
            side.close()


def interleaved(
    turn: Turn, case: str, sides: Mapping[str, tuple[Side, str]], rounds: int, cases: int, **more: Any
) -> dict[str, dict[str, Any]]:
    """Time the sides (each with the name of its step) in turn, round by round, and write a row for each.

    The side that begins changes with each round; the first call of a turn is not counted. A side that breaks down is
    left out from there on. There are fewer rounds if they would take more than this case's share of the time that is
    left, and in a rehearsal; `cases` is how many are left, this one included.
    """
    deadline = time.monotonic() + turn.left() / cases
    rounds, length = (2, TURN / 10) if turn.rehearse else (rounds, TURN)
    times: dict[str, list[float]] = {name: [] for name in sides}
    values: dict[str, Any] = {}
    why: dict[str, dict[str, str]] = {}
    names = list(sides)
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            side, step = sides[name]
            if name in why or (i and time.monotonic() > deadline):
                continue
            try:
                known = times[name] or [side.seconds.get(step, length)]
                calls = min(MOST, max(1, math.ceil(length / max(min(known), 1e-6))))
                if min(known) < 5 * length:
                    side.ask({"run": step, "calls": 1}, turn.left())
                answer = side.ask({"run": step, "calls": calls}, turn.left())
                times[name].append(answer["seconds"])
                values[name] = answer["value"]
            except Broken as broken:
                why[name] = broken.why
    found = {name: summary(times[name], values.get(name), sides[name][0].library) for name in names if name not in why}
    for name in names:
        turn.row(case, name, **(why.get(name) or {**found[name], **more}))
    return found


def summary(seconds: Sequence[float], value: Any, library: str) -> dict[str, Any]:
    """Return the median of some times, the least and the most."""
    return {
        "value": statistics.median(seconds),
        "unit": "s",
        "least": min(seconds),
        "most": max(seconds),
        "rounds": len(seconds),
        "result": value,
        "library": library,
    }
