"""The tests that use a GPU, the quickest first, in several processes; those left over at the end of the time are named.

A test module that cannot be imported, because a package is missing, say, is named and loses no other test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu.part import Turn

__all__ = ["run"]

ROOT = Path(__file__).parents[2]
REHEARSED = ("tests/arrays/test_capturing.py", "tests/arrays/test_cupy.py")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TENSORLIB_THREADS")
CLOSING = 12  # seconds for ending a test that is running, and for collecting what was found


def run(turn: Turn) -> None:
    """Run the tests in several processes, each of which takes every n-th test function."""
    count = 1 if turn.rehearse else 4
    deadline = time.time() + turn.limit - CLOSING
    reports = [Path(turn.folder) / "parts" / f"tests-{i}.jsonl" for i in range(count)]
    processes = []
    for i, report in enumerate(reports):
        report.write_text("")
        plan = {"deadline": deadline, "share": [i, count], "report": str(report), "all": turn.rehearse}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-o",
            "addopts=",
            "-q",
            "-p",
            "gpu.quickest",
            "-p",
            "no:cacheprovider",
        ]
        command += ["--continue-on-collection-errors", *(REHEARSED if turn.rehearse else ["tests"])]
        environment = {**dict.fromkeys(THREADS, "2"), **os.environ, "GPU_TESTS": json.dumps(plan)}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    statuses = []
    for process in processes:
        try:
            statuses.append(process.wait(max(deadline + CLOSING / 2 - time.time(), 0.1)))
        except subprocess.TimeoutExpired:
            process.kill()
            statuses.append(None)
    summarise([[json.loads(line) for line in report.read_text().splitlines()] for report in reports], statuses, turn)


def summarise(reports: list[list[dict[str, Any]]], statuses: list[int | None], turn: Turn) -> None:
    """Write rows: how many tests passed and failed and were left over, each failure, and each module not collected."""
    tests: dict[str, Mapping[str, Any]] = {}
    selected, uncollected = 0, {}
    for report, status in zip(reports, statuses, strict=True):
        found = {line["test"]: line for line in report if "test" in line}
        tests |= found
        selected += next((line["selected"] for line in report if "selected" in line), 0)
        uncollected |= {line["uncollected"]: line["why"] for line in report if "uncollected" in line}
        where = ([line["running"] for line in report if "running" in line] or ["the collection of the tests"])[-1]
        if status is None:
            turn.row("out of time", "tests", text=f"stopped in {where}")
        elif status not in (0, 1, 2, 5):  # passed, failed, collection errors, no tests
            turn.row("a process", "tests", failed=f"ended with status {status} in {where}")
    outcomes = [test["outcome"] for test in tests.values()]
    passed, failed, skipped = (outcomes.count(name) for name in ("passed", "failed", "skipped"))
    left = selected - len(tests)
    text = f"{passed:,} passed, {failed} failed, {skipped} skipped, {left:,} not run of {selected:,}"
    turn.row(
        "on the GPU", "tests", text=text, passed=passed, counts={"failed": failed, "skipped": skipped, "left": left}
    )
    for name, test in [item for item in tests.items() if item[1]["outcome"] == "failed"]:
        turn.row(name, "test", failed=test["why"])
    for name, why in uncollected.items():
        turn.row(name, "test module", missing=why)
    if not tests and not uncollected:
        turn.row("on the GPU", "tests", failed="no test ran")
