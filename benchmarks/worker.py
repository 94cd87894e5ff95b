"""The child process of a measurement: builds one contestant, runs it on request, and answers with the times.

Started by `measure.Worker` as ``python benchmarks/worker.py MODULE:FUNCTION ARGUMENTS``, where FUNCTION(**ARGUMENTS)
returns a `contestants.Contestant`. The messages are JSON objects, one per line: the first on stdout, then a request on
stdin and its answer on stdout in turn::

    {"ready": true, "library": "PyTorch 2.13.0", "pools": [...], "resident": 250000000}
    {"run": "step", "count": 3, "calls": 1}     ->  {"seconds": [0.02, 0.02, 0.02], "value": 6.91}
    {"finish": true}                            ->  {"peak": 400000000, ...}

A worker waits in a blocking read, so an idle worker takes no time from the others. It ends when the parent ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def memory() -> dict[str, int]:
    """Return the memory that this process holds and the maximum that it has held, in bytes."""
    try:  # rather than getrusage, whose maximum includes the memory of the parent at the fork
        lines = Path("/proc/self/status").read_text().splitlines()
        found = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Vm")}
        return {"resident": found["VmRSS"], "peak": found["VmHWM"]}
    except (OSError, KeyError):
        import resource

        scale = 1 if sys.platform == "darwin" else 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
        return {"resident": most, "peak": most}


def hold_to_cores() -> None:
    """Use only as many cores as threads: JAX starts a thread for each core that it may use."""
    threads = int(os.environ.get("BENCHMARK_THREADS", "0"))
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def timed(step: Callable[[], Any], count: int, calls: int) -> dict[str, Any]:
    """Return the seconds per step of `count` runs of `calls` steps each, and the last step's return value."""
    seconds, value = [], None
    for _ in range(count):
        began = time.perf_counter()
        for _ in range(calls):
            value = step()
        seconds.append((time.perf_counter() - began) / calls)
    return {"seconds": seconds, "value": value}


def serve(target: str, arguments: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Build the contestant and answer requests until the parent closes stdin."""
    hold_to_cores()
    module, _, function = target.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
        resident = memory()["resident"]  # with the libraries, before the model is built
        contestant = build(**arguments)
    except ImportError as error:
        return say({"missing": str(error)})
    from threadpoolctl import threadpool_info

    pools = [{k: v for k, v in pool.items() if k != "filepath"} for pool in threadpool_info()]
    say({"ready": True, "library": contestant.library, "pools": pools, "resident": resident})
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            say(timed(contestant.steps[request["run"]], request["count"], request["calls"]))
        else:
            peak = memory()["peak"]  # before `finish`, which may need more
            say({"peak": peak, **contestant.finish()})


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps what a library prints out of the answers

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        serve(sys.argv[1], json.loads(sys.argv[2]), say)
    except Exception:
        say({"error": traceback.format_exc()})


if __name__ == "__main__":
    main()
