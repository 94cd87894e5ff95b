"""A pytest plugin: runs the tests of a GPU in the order of their time, until a deadline, and reports as it goes.

First the first case of each test function, rooms in the order of ROOMS, then the other cases of the functions, those
whose cases have been quickest first. ``GPU_TESTS`` in the environment holds the deadline, the share of the functions
that this process runs, and the file to which results are appended as JSON lines.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

PLAN = json.loads(os.environ.get("GPU_TESTS", "{}"))
WORDS = re.compile("cupy|cuda|gpu|captur|emulat")
ELSEWHERE = re.compile("tests/(project|emulated_gpu)/")  # they test no GPU, and one of them would run this plugin
ROOMS = ("arrays", "kernels", "engine", "ops", "nn", "transforms", "exchange", "models")


def say(**line: Any) -> None:
    """Append a line to the report."""
    with Path(PLAN["report"]).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def function_of(item: pytest.Item) -> str:
    """Return the test function of a test, without its parameters."""
    return item.nodeid.partition("[")[0]


def room_of(function: str) -> int:
    """Return the rank of the room of a test function."""
    room = function.split("/")[1] if function.count("/") > 1 else ""
    return ROOMS.index(room) if room in ROOMS else len(ROOMS)


def is_for_gpu(test: str) -> bool:
    """Return whether a test uses a GPU, by its name."""
    return bool(WORDS.search(test)) and not ELSEWHERE.match(test)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Name a module that cannot be imported, with the last line of its error."""
    if report.failed:
        lines = [line for line in str(report.longrepr).splitlines() if line.strip()]
        errors = [line[1:].strip() for line in lines if line.startswith("E ")]
        say(uncollected=report.nodeid, why=(errors or lines or ["?"])[-1][:300])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a GPU, and of these the functions that are this process's share."""
    wanted = [item for item in items if PLAN["all"] or is_for_gpu(item.nodeid)]
    functions = {name: i for i, name in enumerate(dict.fromkeys(map(function_of, wanted)))}
    number, count = PLAN["share"]
    items[:] = [item for item in wanted if functions[function_of(item)] % count == number]
    say(selected=len(items))


def pytest_runtestloop(session: pytest.Session) -> bool:
    """Run the quickest test that is left, until none is left or the deadline has come."""
    seconds: dict[str, float] = {}
    tests = quickest_first(session.items, seconds)
    item = next(tests, None)
    while item and time.time() < PLAN["deadline"]:
        following = next(tests, None)  # pytest keeps the fixtures that it shares with this test
        say(running=item.nodeid)
        began = time.perf_counter()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        seconds[function_of(item)] = time.perf_counter() - began
        item = following
    return True


def quickest_first(items: Iterable[pytest.Item], seconds: Mapping[str, float]) -> Iterator[pytest.Item]:
    """Yield the first test of each function, then those of the functions whose last test took the fewest seconds."""
    waiting: dict[str, deque[pytest.Item]] = defaultdict(deque)
    for item in items:
        waiting[function_of(item)].append(item)
    unseen = deque(sorted(waiting, key=room_of))
    while waiting:
        function = unseen.popleft() if unseen else min(waiting, key=lambda name: seconds.get(name, float("inf")))
        yield waiting[function].popleft()
        if not waiting[function]:
            del waiting[function]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Report the outcome of a test, once: of its call, or of a set-up that skipped or failed."""
    if report.when == "call" or report.outcome != "passed":
        why = ""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = " ".join(str(crash.message if crash else report.longrepr).split())[:300]
        say(test=report.nodeid, outcome=report.outcome, why=why, seconds=round(report.duration, 3))
