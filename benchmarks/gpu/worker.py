"""The child process of a side that is compared: ``python -m gpu.worker MODULE:FUNCTION ARGUMENTS``.

FUNCTION(**ARGUMENTS) returns a `Timed`. The side builds and warms up all its steps, says which of them failed, and then
answers requests, one JSON object a line::

    {"ready": "PyTorch 2.11.0", "seconds": {"float32": 0.01}, "broken": {"tf32": {"failed": "RuntimeError: ..."}}}
    {"run": "float32", "calls": 20}   ->  {"seconds": 0.01, "value": 6.91}
    {"peak": "float32"}               ->  {"bytes": 400000000}, held by arrays at most during a step
    {"taken": "float32"}              ->  {"bytes": 900000000}, taken from the card by building and running it

An error in a step is an answer, {"failed": "..."}, and the process goes on.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu.part import problem

__all__ = ["Timed"]

SLOW = 2.0  # seconds
WARM = 4  # calls: the first runs plainly, the second records, and a compiler may compile anew for the third


@dataclass
class Timed:
    """The steps of one side.

    Attributes:
        library: name and version.
        steps: by name, functions that build a step. A step returns before the device is done.
        wait: returns when the device has done everything.
        peak: called with a step, returns the most bytes held while it ran.
        warm: calls of each step before the side is ready; 0 leaves building to the first request.
        free: returns the free bytes of the card.
    """

    library: str
    steps: Mapping[str, Callable[[], Callable[[], Any]]]
    wait: Callable[[], None]
    peak: Callable[[Callable[[], Any]], dict[str, int]]
    warm: int = WARM
    free: Callable[[], int] = lambda: 0


class Server:
    """Answers requests about the steps of a side."""

    def __init__(self, timed: Timed) -> None:
        self.timed = timed
        self.built: dict[str, Callable[[], Any]] = {}

    def step(self, name: str) -> Callable[[], Any]:
        if name not in self.built:
            self.built[name] = self.timed.steps[name]()
        return self.built[name]

    def run(self, name: str, calls: int) -> dict[str, Any]:
        """Time some calls of a step, and wait for the device once, after the last."""
        step, value = self.step(name), None
        self.timed.wait()
        began = time.perf_counter()
        for _ in range(calls):
            value = step()
        self.timed.wait()
        seconds = (time.perf_counter() - began) / calls
        return {"seconds": seconds, "value": None if value is None else float(value)}

    def warmed(self) -> dict[str, Any]:
        """Run each step a few times; return the seconds of a call, and the errors by step."""
        seconds, broken = {}, {}
        for name in self.timed.steps if self.timed.warm else ():
            try:
                seconds[name] = self.run(name, self.timed.warm)["seconds"]
                if seconds[name] < SLOW:  # or else this includes building, but there is little to gain
                    seconds[name] = self.run(name, 2)["seconds"]
            except Exception as error:
                traceback.print_exc()
                broken[name] = problem(error)
        return {"ready": self.timed.library, "seconds": seconds, "broken": broken}

    def taken(self, name: str) -> dict[str, int]:
        """Return the bytes that the card has less, after the step was built and called a few times."""
        self.timed.wait()
        before = self.timed.free()
        self.run(name, WARM)
        return {"bytes": before - self.timed.free()}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "run" in request:
                return self.run(request["run"], request["calls"])
            if "peak" in request:
                return self.timed.peak(self.step(request["peak"]))
            return self.taken(request["taken"])
        except Exception as error:
            traceback.print_exc()
            return problem(error)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps what a library prints out of the answers

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    module, _, function = sys.argv[1].partition(":")
    try:
        server = Server(getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2])))
    except Exception as error:
        traceback.print_exc()
        return say(problem(error))
    say(server.warmed())
    for line in sys.stdin:
        say(server.answer(json.loads(line)))


if __name__ == "__main__":
    main()
