"""The pytest plugin of `mutants.py`: runs chosen tests in a given order, each with a time limit, or traces tests."""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mutation.formulas import engine_files

MEMORY = 4 << 30
TraceFunction = Callable[[FrameType, str, Any], Any]
HANGS = "hangs.txt"  # written to if a test exceeds its time limit


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only", help="JSON file {test id: its time limit in seconds}: run these tests, in this order")
    parser.addoption("--trace-to", help="JSON file to write with the lines that each test executes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--only"):
        position = {name: i for i, name in enumerate(time_limits(config))}
        items[:] = sorted((i for i in items if i.nodeid in position), key=lambda i: position[i.nodeid])


def time_limits(config: pytest.Config) -> dict[str, float]:
    """Return the chosen tests, in the given order, and the seconds that each may take."""
    return json.loads(Path(config.getoption("--only")).read_text())


class Watch:
    """Ends the process with status 1 if a test hangs: a mutant's loop may not be interruptible in any other way."""

    def __init__(self, config: pytest.Config) -> None:
        self.limits = time_limits(config)
        self.report = (config.rootpath / HANGS).open("w")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Run one test with a time limit."""
        faulthandler.dump_traceback_later(self.limits[item.nodeid], exit=True, file=self.report)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()


class Tracer:
    """Records the lines of the formulas' files that each test executes, in all threads."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.files = {str(root / f): f for f in engine_files(root)}
        self.found: dict[str, dict[str, Any]] = {}
        self.lines: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> TraceFunction | None:
        """Trace a call into one of these files."""
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> TraceFunction:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool, bool]:
        """Run one test, traced."""
        self.lines, began = set(), time.perf_counter()
        threading.settrace(self)
        sys.settrace(self)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            by_file: dict[str, list[int]] = defaultdict(list)
            for file, line in sorted(self.lines):
                by_file[self.files[file]].append(line)
            self.found[item.nodeid] = {"seconds": time.perf_counter() - began, "lines": by_file}

    def pytest_sessionfinish(self) -> None:
        """Write the trace."""
        self.path.write_text(json.dumps(self.found))


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--only"):
        with suppress(ImportError, OSError, ValueError):  # an endless loop must not fill the machine's memory
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        config.pluginmanager.register(Watch(config))
    if config.getoption("--trace-to"):
        config.pluginmanager.register(Tracer(Path(config.getoption("--trace-to")), config.rootpath))
