"""What runs inside pytest for `mutants.py`: chosen tests in a given order, none for too long; or a trace of each."""

from __future__ import annotations

import faulthandler
import json
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mutation.formulas import engine_files

MEMORY = 4 << 30
HANGS = "hangs.txt"  # written to if a test takes longer than it may


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--only", help="JSON file {test id: seconds that it may take}: run these, in this order")
    parser.addoption("--trace-to", help="file for what each test passed through, as JSON")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    if config.getoption("--only"):
        place = {name: i for i, name in enumerate(seconds_allowed(config))}
        items[:] = sorted((i for i in items if i.nodeid in place), key=lambda i: place[i.nodeid])


def seconds_allowed(config: Any) -> dict[str, float]:
    """Return the tests that were chosen and the time that each may take."""
    return json.loads(Path(config.getoption("--only")).read_text())


class Watch:
    """Ends the process, with status 1, if a test hangs: a mutant may loop where nothing can interrupt it."""

    def __init__(self, config: Any) -> None:
        self.allowed = seconds_allowed(config)
        self.report = (config.rootpath / HANGS).open("w")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        """Run one test, with its time limited."""
        faulthandler.dump_traceback_later(self.allowed[item.nodeid], exit=True, file=self.report)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()


class Tracer:
    """Notes the lines of the engine that each test runs, in whatever thread."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.root = path, root
        self.files = {str(root / f): f for f in engine_files(root)}
        self.found: dict[str, dict[str, Any]] = {}
        self.lines: set[tuple[str, int]] = set()

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        """Trace a call, if it is one to be looked at."""
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        """Run one test, traced."""
        self.lines, began = set(), time.perf_counter()
        threading.settrace(self)
        sys.settrace(self)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            by_file: dict[str, list[int]] = defaultdict(list)
            for file, line in sorted(self.lines):
                by_file[self.files[file]].append(line)
            self.found[item.nodeid] = {"seconds": time.perf_counter() - began, "lines": by_file}

    def pytest_sessionfinish(self) -> None:
        """Write down what was found."""
        self.path.write_text(json.dumps(self.found))


def pytest_configure(config: Any) -> None:
    if config.getoption("--only"):
        with suppress(ImportError, OSError, ValueError):  # a mutant that loops must not fill the machine's memory
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        config.pluginmanager.register(Watch(config))
    if config.getoption("--trace-to"):
        config.pluginmanager.register(Tracer(Path(config.getoption("--trace-to")), config.rootpath))
