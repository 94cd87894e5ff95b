"""Mutation testing of the engine's gradient formulas: makes each formula slightly wrong and expects a test to fail.

    python benchmarks/mutants.py                     # all mutants: about a second each on one core
    python benchmarks/mutants.py softmax layer_norm  # mutants whose file or function contains one of the words
    python benchmarks/mutants.py --list softmax      # print the mutants and run nothing

Each mutant is one change (`mutation/changes.py`) to one formula (`mutation/formulas.py`), made in a temporary copy of
the package. In the copy, pytest runs the tests that execute the changed statement, until one fails; a traced run of
the engine's tests has found those tests. Each result is appended to `build/mutants/log.jsonl` at once. A run that was
stopped continues where it stopped, and after a change to the code only mutants whose outcome may differ run again.

Mutants that no test notices are listed, with the explanations from `mutation/survivors.toml`. The exit status is 1 if
less than 95 % of the mutants make a test fail. The program needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

if find_spec("pytest") is None:
    raise SystemExit('mutants.py runs the tests by pytest, which is not installed; pip install -e ".[dev]"')

from mutation.changes import Mutant, find_mutants
from mutation.formulas import engine_files
from mutation.plugin import HANGS
from tqdm import tqdm

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
EXPLANATIONS = Path(__file__).with_name("mutation") / "survivors.toml"
REQUIRED = 0.95
COPIED = (
    "tensorlib", "nn", "models", "tests", "benchmarks", "examples", "pyproject.toml", "README.md", "CONTRIBUTING.md",
)  # fmt: skip
OTHER_ROOMS = {"models", "project"}  # folders whose tests test no formula of the engine
LEFT_OUT = {  # these are slow to trace or need PyTorch, and find little that other tests do not find
    "tests/arrays/test_threads.py", "tests/engine/test_random_programs.py", "tests/ops/test_parity.py",
}  # fmt: skip
REPORTED = 25  # finished mutants per line of progress where no terminal shows a progress bar


# ---- copies of the package to run tests in -----------------------------------------------------------------------


class Sandbox:
    """A copy of the package and its tests, which runs one mutant after another."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, folder / name)
        self.writes = 0

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest in the copy, without other plugins that happen to be installed, which only cost time."""
        left_out = ("-p", "no:cacheprovider", "-p", "no:faulthandler")
        command = [sys.executable, "-m", "pytest", "-q", *left_out, "-p", "mutation.plugin", *arguments]
        path = os.pathsep.join([str(self.root), str(self.root / "benchmarks")])
        settings = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **settings, "PYTHONPATH": path}
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, errors="replace")

    def write(self, path: str, source: bytes) -> None:
        """Replace a file. Each version gets a different mtime; otherwise Python would reuse stale bytecode."""
        (self.root / path).write_bytes(source)
        self.writes += 1
        os.utime(self.root / path, (1e9 + self.writes, 1e9 + self.writes))

    def outcome(self, mutant: Mutant, source: bytes, stages: Sequence[dict[str, float]]) -> tuple[str, str]:
        """Run the tests on a mutant; return "killed" or "survived", and the test that failed."""
        self.write(mutant.path, mutant.apply(source))
        try:
            for tests in stages:
                (self.root / "only.json").write_text(json.dumps(tests))
                files = dict.fromkeys(name.partition("::")[0] for name in tests)
                done = self.pytest("-x", "--only", "only.json", *files)
                if done.returncode in (3, 4, 5):  # pytest itself failed or collected no test
                    raise RuntimeError(f"{mutant.key}\n{done.stdout}{done.stderr}")
                if done.returncode != 0:
                    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
                    hung = (self.root / HANGS).stat().st_size > 0
                    return "killed", failed[1] if failed else "a test that hangs" if hung else "a crash"
        finally:
            self.write(mutant.path, source)
        return "survived", ""


# ---- which tests -------------------------------------------------------------------------------------------------


def engine_tests() -> list[str]:
    """Return the test files of the rooms of tensorlib and nn."""
    files = [p.relative_to(ROOT) for p in ROOT.glob("tests/*/**/test_*.py")]
    return sorted(p.as_posix() for p in files if p.parts[1] not in OTHER_ROOMS and p.as_posix() not in LEFT_OUT)


def helpers_of(tests: Sequence[str]) -> set[str]:
    """Return conftest.py and the files of `tests` that the given tests import, directly or through others."""
    found, pending = set[str](), ["tests/conftest.py", *tests]
    while pending:
        for node in ast.walk(ast.parse((ROOT / pending.pop()).read_text(encoding="utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(f"{node.module}.{a.name}" for a in node.names)]
            for module in modules:
                path = f"{module.replace('.', '/')}.py"
                if module.startswith("tests.") and path not in found and (ROOT / path).exists():
                    found.add(path)
                    pending.append(path)
    return found | {"tests/conftest.py"}


def digest_of(paths: Sequence[str]) -> str:
    """Return a hash of the names and contents of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode() + b"\0" + (ROOT / path).read_bytes())
    return digest.hexdigest()[:16]


def relevant_files() -> list[str]:
    """Return every file on which the outcome of a test of the engine may depend."""
    tests = engine_tests()
    code = [p.relative_to(ROOT).as_posix() for room in ("tensorlib", "nn") for p in ROOT.glob(f"{room}/**/*.py")]
    return sorted({*code, *tests, *helpers_of(tests)})


def traced(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """Return the lines that each test executes and its seconds, from the last traced run if nothing has changed."""
    kept, state = WORK / "trace.json", digest_of(relevant_files())
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["state"] == state:
            return found["tests"]
    print("tracing the tests of the engine ...", flush=True)
    done = sandbox.pytest("-m", "not peers", "--trace-to", "trace.json", *engine_tests())
    if done.returncode != 0:
        sys.exit(f"mutants: the tests must pass before anything is changed:\n{done.stdout[-3000:]}{done.stderr}")
    tests = json.loads((sandbox.root / "trace.json").read_text())
    kept.write_text(json.dumps({"state": state, "tests": tests}))
    return tests


def tests_through(mutant: Mutant, tests: dict[str, dict[str, Any]]) -> list[dict[str, float]]:
    """Return the tests that execute the changed statement, each with its time limit in seconds, in two stages.

    The first stage holds the tests near the formula. In each stage, gradient checks come first, then fast tests. Few
    mutants need the second stage, and merely collecting all test files takes longer than most tests.
    """
    first, last = mutant.lines
    chosen = [
        name for name, test in tests.items()
        if any(first <= line <= last for line in test["lines"].get(mutant.path, ()))
    ]  # fmt: skip
    chosen.sort(key=lambda name: ("test_gradient[" not in name, tests[name]["seconds"], name))
    stages = [[name for name in chosen if is_near(mutant.path, name) == near] for near in (True, False)]
    return [{name: 10 + 10 * tests[name]["seconds"] for name in stage} for stage in stages if stage]


def is_near(path: str, test: str) -> bool:
    """Return whether a test is in the formula's room (engine, kernels), or in its family or the op table (others)."""
    _, room, *_, file = path.split("/")
    if room in ("engine", "kernels"):
        return test.startswith(f"tests/{room}/")
    return test.startswith(("tests/ops/test_table.py::", f"tests/ops/test_{file}::"))


# ---- the run -----------------------------------------------------------------------------------------------------


class Log:
    """The finished mutants, one JSON object per line, so that a run can be stopped and continued."""

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, digest_of(relevant_files())
        self.entries: dict[str, dict[str, Any]] = {}
        text = path.read_text() if path.exists() else ""
        if text and not text.endswith("\n"):  # the run was stopped while it wrote
            text = text[: text.rfind("\n") + 1]
            path.write_text(text)
        for line in text.splitlines():
            entry = json.loads(line)
            self.entries[entry["key"]] = entry

    def known(self, mutant: Mutant) -> dict[str, Any] | None:
        """Return the result of an earlier run if it still holds.

        After any change, a mutant that survived runs again. A mutant that was killed stays killed while its formula and
        the test file that killed it are unchanged.
        """
        entry = self.entries.get(mutant.key)
        if entry is None or entry["formula"] != mutant.digest:
            return None
        if entry["state"] == self.state:
            return entry
        return entry if entry["outcome"] == "killed" and entry["tests"] == self._tests(entry["by"]) != "" else None

    def note(self, mutant: Mutant, outcome: str, by: str, seconds: float) -> None:
        """Add a result, both here and to the file."""
        entry = {"key": mutant.key, "formula": mutant.digest, "state": self.state, "outcome": outcome, "by": by,
                 "tests": self._tests(by), "seconds": round(seconds, 2)}  # fmt: skip
        self.entries[mutant.key] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _tests(self, by: str) -> str:
        """Return the digest of the test's file, or "" for a crash."""
        file = by.partition("::")[0]
        return digest_of([file]) if file.endswith(".py") and (ROOT / file).is_file() else ""


@contextmanager
def sandboxes(count: int) -> Iterator[queue.SimpleQueue[Sandbox]]:
    """Create `count` temporary copies of the package, and remove them at the end."""
    free: queue.SimpleQueue[Sandbox] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for i in range(count):
            free.put(Sandbox(Path(folder) / str(i)))
        yield free


def run(mutants: Sequence[Mutant], sources: dict[str, bytes], jobs: int, log: Log) -> None:
    """Run every mutant whose result is not known."""
    pending = [m for m in mutants if log.known(m) is None]
    if not pending:
        return
    print(f"{len(pending)} of {len(mutants)} mutants to run; results go to {log.path}", flush=True)
    with sandboxes(jobs) as free, ThreadPoolExecutor(jobs) as pool:
        first = free.get()
        tests = traced(first)
        free.put(first)

        def one(mutant: Mutant) -> tuple[Mutant, str, str, float]:
            sandbox, began = free.get(), time.perf_counter()
            try:
                outcome, by = sandbox.outcome(mutant, sources[mutant.path], tests_through(mutant, tests))
                return mutant, outcome, by, time.perf_counter() - began
            finally:
                free.put(sandbox)

        waiting = [pool.submit(one, m) for m in pending]
        try:
            for done in progress(as_completed(waiting), len(waiting)):
                mutant, outcome, by, seconds = done.result()
                log.note(mutant, outcome, by, seconds)
                if outcome == "survived":
                    tqdm.write(f"survived: {mutant.key}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items, and show a progress bar on a terminal, or elsewhere a line after every few items."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit="mutant", mininterval=1)
        return
    began = time.perf_counter()
    for i, item in enumerate(items, 1):
        yield item
        if i % REPORTED == 0 or i == total:
            print(f"{i} of {total} mutants after {time.perf_counter() - began:.0f} s", flush=True)


# ---- the report --------------------------------------------------------------------------------------------------


def explanations() -> dict[str, str]:
    """Return the reasons why mutants survive, by the mutants' keys."""
    table = tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8"))["survivors"] if EXPLANATIONS.exists() else []
    return {f"{entry['formula']} {change}": entry["why"] for entry in table for change in entry["changes"]}


def report(mutants: Sequence[Mutant], sources: dict[str, bytes], log: Log) -> float:
    """Print a line per file, then the survivors; return the share of mutants that made a test fail."""
    survivors = [m for m in mutants if log.entries[m.key]["outcome"] == "survived"]
    total, alive = Counter(m.path for m in mutants), Counter(m.path for m in survivors)
    total["all"], alive["all"] = len(mutants), len(survivors)
    print(f"\n{'file':40} {'mutants':>8} {'killed':>8} {'survived':>9} {'share':>8}")
    for path, count in total.items():
        print(f"{path:40} {count:8} {count - alive[path]:8} {alive[path]:9} {1 - alive[path] / count:8.1%}")
    reasons = explanations()
    explained = [m for m in survivors if m.key in reasons]
    print(f"\nsurvivors that are explained: {len(explained)}")
    for why in dict.fromkeys(reasons[m.key] for m in explained):
        print(f"\n  {why}")
        print_mutants([m for m in explained if reasons[m.key] == why], sources)
    print(f"\nsurvivors without an explanation: {len(survivors) - len(explained)}\n")
    print_mutants([m for m in survivors if m.key not in reasons], sources)
    return 1 - len(survivors) / len(mutants)


def outdated(mutants: Sequence[Mutant]) -> list[str]:
    """Return the keys in the table of explanations that match no mutant, because a formula has changed."""
    return sorted(set(explanations()) - {m.key for m in mutants})


def print_mutants(mutants: Sequence[Mutant], sources: dict[str, bytes]) -> None:
    for mutant in mutants:
        line = sources[mutant.path][: mutant.start].count(b"\n") + 1
        print(f"    {mutant.path}:{line} {mutant.where} {mutant.kind}: {mutant.change}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the engine's gradient formulas.")
    parser.add_argument("word", nargs="*", help="only mutants whose file or function contains one of these words")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many mutants to run at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--fresh", action="store_true", help="ignore the results of earlier runs")
    options = parser.parse_args(arguments)

    sources = {path: (ROOT / path).read_bytes() for path in engine_files(ROOT)}
    mutants = find_mutants(sources)
    for key in outdated(mutants):
        print(f"{EXPLANATIONS.name} explains a mutant that no longer exists: {key}")
    if options.word:
        mutants = [m for m in mutants if any(word in f"{m.path} {m.where}" for word in options.word)]
    if not mutants:
        parser.error(f"no mutant's file or function contains {' or '.join(options.word)}")
    if options.list:
        print(*[m.key for m in mutants], f"{len(mutants)} mutants", sep="\n")
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        (WORK / "log.jsonl").unlink(missing_ok=True)
    log = Log(WORK / "log.jsonl")
    run(mutants, sources, options.jobs, log)
    share = report(mutants, sources, log)
    return 0 if share >= REQUIRED else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # removes the copies of the package first
    sys.exit(main())
