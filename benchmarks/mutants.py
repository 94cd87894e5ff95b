"""A mutation run over the engine's own gradient formulas: makes each slightly wrong, and sees whether a test fails.

    python benchmarks/mutants.py                     # all of them: about a second each and core
    python benchmarks/mutants.py softmax layer_norm  # those whose file or function has one of these words in it
    python benchmarks/mutants.py --list softmax      # only say what would be changed

Each mutant is one change (`mutation/changes.py`) to one formula (`mutation/formulas.py`), made in a temporary copy of
the package. There pytest runs the tests that pass through the changed statement, until one fails: which these are is
found by one traced run of the engine's tests. Finished mutants are noted in `build/mutants/log.jsonl`, so a run that
was stopped goes on where it was, and after a change of the code only what may have another outcome is run again.

Mutants that no test notices are listed, with the explanations in `mutation/survivors.toml`. The exit status is 1 if
less than 95 % of the mutants make a test fail. Needs the extra `dev`.
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
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mutation.changes import Mutant, find_mutants
from mutation.formulas import ENGINE, engine_files
from mutation.plugin import HANGS
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutants"
EXPLANATIONS = Path(__file__).with_name("mutation") / "survivors.toml"
REQUIRED = 0.95
COPIED = (
    "tensorlib", "nn", "models", "tests", "benchmarks", "examples", "pyproject.toml", "README.md", "CONTRIBUTING.md",
)  # fmt: skip
WITH_MODELS = ("test_checkpointing.py", "test_debug.py", "test_explain.py")  # which use a model as an example
LEFT_OUT = ("test_mutants.py", "test_random_programs.py")


# ---- copies in which tests run -----------------------------------------------------------------------------------


class Workplace:
    """A copy of the package and its tests, in which one mutant after another is tried."""

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
        """Run pytest here. Plugins that are installed by chance are left out: they cost time and change nothing."""
        left_out = ("-p", "no:cacheprovider", "-p", "no:faulthandler")
        command = [sys.executable, "-m", "pytest", "-q", *left_out, "-p", "mutation.plugin", *arguments]
        path = os.pathsep.join([str(self.root), str(self.root / "benchmarks")])
        settings = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "", "OPENBLAS_NUM_THREADS": "1"}
        environment = {**os.environ, **settings, "PYTHONPATH": path}
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, errors="replace")

    def write(self, path: str, source: bytes) -> None:
        """Replace a file. A time of its own for each version, or Python would take the compiled file of another."""
        (self.root / path).write_bytes(source)
        self.writes += 1
        os.utime(self.root / path, (1e9 + self.writes, 1e9 + self.writes))

    def try_out(self, mutant: Mutant, source: bytes, stages: Sequence[dict[str, float]]) -> tuple[str, str]:
        """Return "killed" or "survived", and the test that noticed."""
        self.write(mutant.path, mutant.apply(source))
        try:
            for tests in stages:
                (self.root / "only.json").write_text(json.dumps(tests))
                files = dict.fromkeys(name.partition("::")[0] for name in tests)
                done = self.pytest("-x", "--only", "only.json", *files)
                if done.returncode in (3, 4, 5):  # pytest itself failed, or found no test
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
    """Return the tests of the engine: those that import no model, but for an example."""
    chosen = [p for p in sorted(ROOT.glob("tests/test_*.py")) if p.name not in LEFT_OUT]
    return [f"tests/{p.name}" for p in chosen if p.name in WITH_MODELS or "models" not in imported_by(p)]


def imported_by(path: Path) -> set[str]:
    """Return the top-level modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
    names += [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def digest_of(paths: Sequence[str]) -> str:
    """Return a hash of these files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode() + b"\0" + (ROOT / path).read_bytes())
    return digest.hexdigest()[:16]


def everything() -> list[str]:
    """Return every file on which the outcome of a test of the engine may depend."""
    tests = [ROOT / name for name in engine_tests()]
    helpers = set.union({"conftest"}, *map(imported_by, tests))
    found = [*ROOT.glob("tensorlib/**/*.py"), *ROOT.glob("nn/*.py"), *tests]
    found += [p for p in ROOT.glob("tests/*.py") if p.stem in helpers]
    return sorted(p.relative_to(ROOT).as_posix() for p in found)


def traced(workplace: Workplace) -> dict[str, dict[str, Any]]:
    """Return what each test passes through and how long it takes: from the last run, if nothing changed since."""
    kept, state = WORK / "trace.json", digest_of(everything())
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["state"] == state:
            return found["tests"]
    print("tracing the tests of the engine ...", flush=True)
    done = workplace.pytest("-m", "not peers", "--trace-to", "trace.json", *engine_tests())
    if done.returncode != 0:
        sys.exit(f"mutants: the tests must pass before anything is changed, but:\n{done.stdout[-3000:]}{done.stderr}")
    tests = json.loads((workplace.root / "trace.json").read_text())
    kept.write_text(json.dumps({"state": state, "tests": tests}))
    return tests


def tests_through(mutant: Mutant, tests: dict[str, dict[str, Any]]) -> list[dict[str, float]]:
    """Return the tests that run the changed statement, each with the seconds that it may take, in two stages.

    First those nearest to the formula, gradients and what is fast before the rest: few mutants need the second stage,
    and only collecting all test files takes longer than most tests.
    """
    first, last = mutant.lines
    chosen = [
        name for name, test in tests.items()
        if any(first <= line <= last for line in test["lines"].get(mutant.path, ()))
    ]  # fmt: skip
    chosen.sort(key=lambda name: ("test_gradient[" not in name, tests[name]["seconds"], name))
    if mutant.path in ENGINE:
        near = {"tests/engine/test_engine.py"}
    elif "/kernels/" in mutant.path:
        near = {"tests/kernels/test_kernels.py"}
    else:
        near = {"tests/ops/test_table.py", f"tests/test_{Path(mutant.path).stem}.py"}
    stages = [[name for name in chosen if (name.partition("::")[0] in near) == beside] for beside in (True, False)]
    return [{name: 10 + 10 * tests[name]["seconds"] for name in stage} for stage in stages if stage]


# ---- the run -----------------------------------------------------------------------------------------------------


class Log:
    """The finished mutants, one JSON object a line, so that a run can be stopped and taken up again."""

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, digest_of(everything())
        self.entries: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            if line.endswith("}"):  # the last one may be torn
                entry = json.loads(line)
                self.entries[entry["key"]] = entry

    def known(self, mutant: Mutant) -> dict[str, Any] | None:
        """Return a result that still holds.

        After a change anywhere, a mutant that survived is tried again; one that was killed stays so while its formula
        and the tests in the file that killed it are what they were.
        """
        entry = self.entries.get(mutant.key)
        if entry is None or entry["formula"] != mutant.digest:
            return None
        if entry["state"] == self.state:
            return entry
        return entry if entry["outcome"] == "killed" and entry["tests"] == self._tests(entry["by"]) != "" else None

    def note(self, mutant: Mutant, outcome: str, by: str, seconds: float) -> None:
        """Add a result, on the disk too."""
        entry = {"key": mutant.key, "formula": mutant.digest, "state": self.state, "outcome": outcome, "by": by,
                 "tests": self._tests(by), "seconds": round(seconds, 2)}  # fmt: skip
        self.entries[mutant.key] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _tests(self, by: str) -> str:
        """Return the digest of the file that the test stands in, "" if what noticed was a crash."""
        file = by.partition("::")[0]
        return digest_of([file]) if file.endswith(".py") and (ROOT / file).is_file() else ""


@contextmanager
def workplaces(count: int) -> Iterator[queue.SimpleQueue[Workplace]]:
    """Give `count` copies of the package, and take them away."""
    free: queue.SimpleQueue[Workplace] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for i in range(count):
            free.put(Workplace(Path(folder) / str(i)))
        yield free


def run(mutants: Sequence[Mutant], sources: dict[str, bytes], jobs: int, log: Log) -> None:
    """Try out every mutant of which no result is known."""
    pending = [m for m in mutants if log.known(m) is None]
    if not pending:
        return
    with workplaces(jobs) as free, ThreadPoolExecutor(jobs) as pool:
        first = free.get()
        tests = traced(first)
        free.put(first)

        def one(mutant: Mutant) -> tuple[Mutant, str, str, float]:
            workplace, began = free.get(), time.perf_counter()
            try:
                outcome, by = workplace.try_out(mutant, sources[mutant.path], tests_through(mutant, tests))
                return mutant, outcome, by, time.perf_counter() - began
            finally:
                free.put(workplace)

        waiting = [pool.submit(one, m) for m in pending]
        try:
            for done in tqdm(as_completed(waiting), total=len(waiting), unit="mutant", mininterval=1):
                log.note(*done.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# ---- the report --------------------------------------------------------------------------------------------------


def explanations() -> dict[str, str]:
    """Return the reasons why mutants survive, by key."""
    table = tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8"))["survivors"] if EXPLANATIONS.exists() else []
    return {f"{entry['formula']} {change}": entry["why"] for entry in table for change in entry["changes"]}


def report(mutants: Sequence[Mutant], sources: dict[str, bytes], log: Log) -> float:
    """Print a line for each file, then the survivors; return the share of mutants that made a test fail."""
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
        print_places([m for m in explained if reasons[m.key] == why], sources)
    print(f"\nsurvivors without an explanation: {len(survivors) - len(explained)}\n")
    print_places([m for m in survivors if m.key not in reasons], sources)
    return 1 - len(survivors) / len(mutants)


def outdated(mutants: Sequence[Mutant]) -> list[str]:
    """Return the keys in the table of explanations that belong to no mutant: a formula changed since."""
    return sorted(set(explanations()) - {m.key for m in mutants})


def print_places(mutants: Sequence[Mutant], sources: dict[str, bytes]) -> None:
    for mutant in mutants:
        line = sources[mutant.path][: mutant.start].count(b"\n") + 1
        print(f"    {mutant.path}:{line} {mutant.where} {mutant.kind}: {mutant.change}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A mutation run over the engine's own gradient formulas.")
    parser.add_argument("word", nargs="*", help="only mutants whose file or function has one of these words in it")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many to run at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    options = parser.parse_args(arguments)

    sources = {path: (ROOT / path).read_bytes() for path in engine_files(ROOT)}
    mutants = find_mutants(sources)
    for key in outdated(mutants):
        print(f"{EXPLANATIONS.name} explains what is no mutant any more: {key}")
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the copies of the package are taken away first
    sys.exit(main())
