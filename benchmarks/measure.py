"""Shared by the benchmarks: worker processes that take turns, and tables of their times.

One contestant runs at a time while the others sleep, round by round, so that a slow moment of the machine affects all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from models.system.machine import cores, processor

HERE = Path(__file__).resolve().parent
REST = 0.12  # seconds before a turn: idle threads of OpenBLAS spin for up to about 90 ms after their last product
TURN = 0.2  # the least seconds of counted steps in a turn
OURS = "tensorlib"


class Missing(Exception):
    """A contestant's library is not installed."""


# ---- processes ---------------------------------------------------------------------------------------------------


def environment(threads: int, coretype: str = "asis", **more: str) -> dict[str, str]:
    """Return the environment of a worker with this number of threads, and with OpenBLAS kernels for `coretype`.

    `coretype` is "asis" (the value in this process), "unset" (OpenBLAS chooses) or a name such as "Haswell".
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TENSORLIB_THREADS", "BENCHMARK_THREADS")
    found = {**os.environ, **dict.fromkeys(names, str(threads))}
    found["PYTHONPATH"] = os.pathsep.join(p for p in (str(HERE.parent), os.environ.get("PYTHONPATH")) if p)
    if coretype == "unset":
        found.pop("OPENBLAS_CORETYPE", None)
        found.pop("OPENBLAS_L2_SIZE", None)
    elif coretype != "asis":
        found["OPENBLAS_CORETYPE"] = coretype
    return {**found, **more}


class Worker:
    """One contestant in its own process. `target` is "module:function", called with `arguments`."""

    def __init__(self, target: str, arguments: Mapping[str, Any], env: Mapping[str, str]) -> None:
        command = [sys.executable, str(HERE / "worker.py"), target, json.dumps(arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=dict(env), text=True)
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, name: str = "step", count: int = 1, calls: int = 1) -> list[float]:
        """Return the seconds of each of `count` steps; with `calls` > 1, each is the mean over that many calls."""
        answer = self._ask({"run": name, "count": count, "calls": calls})
        self.value = answer["value"]  # the last step's return value
        return answer["seconds"]

    def finish(self) -> dict[str, Any]:
        """Return the peak memory in bytes ("peak"), and the contestant's own final results."""
        return self._ask({"finish": True})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"the worker died: status {self.process.wait()}"}
        if "missing" in answer:
            raise Missing(answer["missing"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Starter = Callable[[], Worker]


@contextmanager
def started(starters: Mapping[str, Starter]) -> Iterator[dict[str, Worker]]:
    """Start a worker for each name, one after another; print the names of those whose library is missing."""
    with ExitStack() as stack:
        workers = {}
        for name, start in starters.items():
            try:
                workers[name] = stack.enter_context(start())
            except Missing as missing:
                print(f"{name} is left out: {missing}", flush=True)
        yield workers


def interleave(
    workers: Mapping[str, Worker], rounds: int, warmups: int = 3, step: str = "step"
) -> dict[str, list[float]]:
    """Return the seconds of each worker's steps, taken in turn; the worker that begins changes with each round.

    The first step of a turn is not counted. Unlike a step of a training run, it finds cold caches, sleeping threads,
    and memory that a library freed and that the system, or the host of a virtual machine, has since taken back.
    """
    times: dict[str, list[float]] = {name: [] for name in workers}
    counts = {}
    for name, worker in workers.items():
        counts[name] = per_turn(min(worker.run(step, warmups)))
    names, disturbance = list(workers), Disturbance()
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            time.sleep(REST)
            with disturbance.watched(workers[name]):
                times[name] += workers[name].run(step, counts[name])[1:]
    disturbance.warn()
    return times


def per_turn(seconds: float) -> int:
    """Return the number of steps of this length in a turn: one that is not counted, and those that are."""
    return 1 + math.ceil(TURN / max(seconds, TURN / 50))


class Disturbance:
    """The processor time that other processes, or the host of a virtual machine, took during the turns."""

    def __init__(self) -> None:
        self.seconds = self.others = self.stolen = 0.0

    @contextmanager
    def watched(self, worker: Worker) -> Iterator[None]:
        """Add the processor time that passes while a worker takes its turn."""
        before = self._now(worker.process.pid)
        yield
        seconds, own, busy, stolen = (b - a for a, b in zip(before, self._now(worker.process.pid), strict=True))
        self.seconds += seconds
        self.others += max(0.0, busy - own)
        self.stolen += stolen

    def _now(self, pid: int) -> tuple[float, float, float, float]:
        """Return the time, and the processor seconds of process `pid`, of all processes, and stolen by the host."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            counters = [int(word) / tick for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
            own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (AttributeError, OSError, ValueError):  # Windows has no os.sysconf
            return time.perf_counter(), 0.0, 0.0, 0.0
        user, nice, system, _idle, _wait, irq, soft_irq, stolen = counters
        return time.perf_counter(), (int(own[11]) + int(own[12])) / tick, user + nice + system + irq + soft_irq, stolen

    def warn(self) -> None:
        """Print a warning if the figures are not reliable."""
        others, stolen = (x / max(self.seconds, 1e-9) for x in (self.others, self.stolen))
        if max(others, stolen) > 0.05:
            print(
                f"NOT QUIET: during the turns other processes took {others:.0%} of a core and the host {stolen:.0%}; "
                "measure again when the machine is idle",
                flush=True,
            )


# ---- figures -----------------------------------------------------------------------------------------------------


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the first quartile, the median and the third quartile."""
    if len(values) == 1:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def ratios(medians: Mapping[str, float], to: str = OURS) -> dict[str, float]:
    """Return for each name how many times as fast `to` does the same work; empty if `to` was not measured."""
    return {name: median / medians[to] for name, median in medians.items()} if to in medians else {}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns: the first flush left, the others flush right."""
    rows = [list(heads), *map(list, rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = [
        " | ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    rule = "|".join("-" * (w + 1) + ":" if i else "-" * (w + 2) for i, w in enumerate(widths))
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *[f"| {line} |" for line in lines[1:]]])


def duration(seconds: float) -> str:
    """Return a time in a suitable unit."""
    scale, unit = next((s, u) for s, u, least in ((1, "s", 10), (1e3, "ms", 1e-3), (1e6, "us", 0)) if seconds >= least)
    return f"{seconds * scale:.{1 if seconds * scale >= 10 else 2}f} {unit}"


def megabytes(count: float) -> str:
    """Return bytes as MB."""
    return f"{count / 1e6:,.0f} MB"


# ---- machine and options ----------------------------------------------------------------------------------------


def describe(workers: Mapping[str, Worker], env: Mapping[str, str]) -> str:
    """Return lines that describe the machine, the versions, and each worker's BLAS and threads."""
    core = env.get("OPENBLAS_CORETYPE", "unset")
    lines = [f"{processor()}; Python {platform.python_version()}; OPENBLAS_CORETYPE={core}"]
    for name, worker in workers.items():
        pools = [
            " ".join(str(p[k]) for k in ("internal_api", "version", "architecture") if p.get(k))
            + f" x{p['num_threads']}"
            for p in worker.ready["pools"]
        ]
        lines.append(f"{name}: {worker.ready['library']}; {', '.join(pools) or 'no pool that threadpoolctl knows'}")
    return "\n".join(lines)


def one_of(names: Mapping[str, Any]) -> Callable[[str], str]:
    """Return an argument type that accepts one of these names.

    With nargs="*", `choices` would reject an empty list of arguments.
    """

    def checked(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return checked


def parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with the options common to the benchmarks."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--threads", type=int, default=cores(), help="for every contestant; default: one per core")
    made.add_argument(
        "--coretype",
        default="unset",
        help="OPENBLAS_CORETYPE of the workers: unset (default; OpenBLAS chooses), asis, or a name such as Haswell",
    )
    if rounds is not None:
        made.add_argument("--rounds", type=int, default=rounds)
    return made
