"""`benchmarks/gpu.sh`: parts that fail or hang lose nothing else; goals; the rehearsal. No test asserts a time."""

import json
import os
import re
import subprocess
import sys
import time

import pytest

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"

PLANTED = """
import os, sys, time
from gpu.part import Turn
from gpu.sides import Broken, Sides, interleaved
from gpu.worker import Timed

def good(turn):
    turn.row("case", "side", value=2.0, unit="s")

def fails(turn):
    turn.row("before", "side", value=1.0, unit="s")
    raise ValueError("planted")

def misses(turn):
    import no_such_library

def crashes(turn):
    os.abort()

def hangs(turn):
    turn.row("before", "side", value=1.0, unit="s")
    child = os.fork()  # a process of its own, as a peer has
    time.sleep(600)

def early(turn):
    turn.row("prepared", "side", value=0.0, unit="s")
    turn.wait()
    turn.row("timed", "side", value=1.0, unit="s")

def never_ready(turn):
    time.sleep(600)

def steps():
    def broken():
        raise ValueError("planted")
    def missing():
        import no_such_library
    return Timed("fake 1.0", {"good": lambda: lambda: 3.0, "broken": lambda: broken, "missing": lambda: missing},
                 lambda: None, lambda step: {"bytes": 5})

def dies():
    os._exit(3)

def sides(turn):
    with Sides() as started:
        side, dead = started.side("planted:steps", {}), started.side("planted:dies", {})
        assert started.side("planted:steps", {}) is side
        started.ready(60)
        pairs = {name: (side, name) for name in ("good", "broken", "missing")}
        interleaved(turn, "case", {**pairs, "dead": (dead, "good")}, 2, 1)
        turn.row("memory", "good", value=side.ask({"peak": "good"})["bytes"], unit="B")
"""


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Make the package `gpu` importable here and in processes, beside a module of planted parts."""
    before = set(sys.modules)
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(BENCHMARKS), str(tmp_path)]))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "gpu":
            del sys.modules[name]


SETTINGS = {"backend": "numpy", "device": "cpu", "rehearse": True, "every": False, "data": None}


def run_planted(folder, parts, **options):
    """Run planted parts, given as (function, limit) or (function, limit, early); return what was found."""
    from gpu.parts import Part
    from gpu.running import run_parts

    made = [Part(name, f"planted:{name}", limit, limit, bool(early)) for name, limit, *early in parts]
    return run_parts(made, {**SETTINGS, "folder": str(folder)}, folder, **options)


def test_a_part_that_fails_or_hangs_loses_nothing_else(gpu):
    seen = []
    found = run_planted(
        gpu,
        [("good", 60), ("fails", 60), ("hangs", 6), ("crashes", 60), ("misses", 60), ("sides", 60)],
        after=lambda found: seen.append(list(found)),
    )
    assert {name: part["state"] for name, part in found.items()} == {
        "good": "finished", "fails": "failed", "hangs": "out of time", "crashes": "failed", "misses": "finished",
        "sides": "finished",
    }  # fmt: skip
    assert [len(names) for names in seen] == [1, 2, 3, 4, 5, 6]  # written after each part
    assert found["good"]["rows"] == [{"case": "case", "side": "side", "value": 2.0, "unit": "s"}]
    before, why = found["fails"]["rows"]  # what was known before the failure stays
    assert before["case"] == "before" and re.match(r"ValueError: planted \(planted\.py:\d+\)", why["failed"])
    assert [row["case"] for row in found["hangs"]["rows"]] == ["before"] and "after 6 s" in found["hangs"]["error"]
    assert "signal 6" in found["crashes"]["error"]
    assert found["misses"]["rows"][0]["missing"] == "No module named 'no_such_library'"


def test_a_side_that_breaks_down_loses_no_other_side(gpu):
    rows = {(row["case"], row["side"]): row for row in run_planted(gpu, [("sides", 60)])["sides"]["rows"]}
    assert rows["case", "good"]["result"] == 3.0 and rows["case", "good"]["rounds"] == 2
    assert "ValueError: planted" in rows["case", "broken"]["failed"]
    assert "no_such_library" in rows["case", "missing"]["missing"]
    assert "status 3" in rows["case", "dead"]["failed"]
    assert rows["memory", "good"]["value"] == 5


def test_parts_that_prepare_wait_for_their_turn(gpu):
    found = run_planted(gpu, [("good", 60), ("early", 60, True), ("never_ready", 60, True)], ready=20)
    assert [row["case"] for row in found["early"]["rows"]] == ["prepared", "timed"]
    assert found["never_ready"]["state"] == "out of time" and "not ready" in found["never_ready"]["error"]
    late = run_planted(gpu, [("good", 60), ("early", 60, True)], total=-1)
    assert {part["state"] for part in late.values()} == {"not run"}


def test_an_interrupted_run_keeps_what_was_known(gpu, monkeypatch):
    from gpu.running import Process

    def interrupted(self, seconds=None):
        while not self.lines():
            time.sleep(0.05)
        raise KeyboardInterrupt

    seen = []
    monkeypatch.setattr(Process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_planted(gpu, [("hangs", 60), ("good", 60)], after=lambda found: seen.append(dict(found)))
    ((name, part),) = seen[0].items()
    assert (name, part["state"]) == ("hangs", "interrupted") and part["rows"][0]["case"] == "before"


def test_the_limits_add_up_to_less_than_seven_minutes(gpu):
    from gpu.parts import PARTS, READY, TOTAL, chosen

    default = chosen([], False)
    waiting = READY - default[0].limit  # for peers that are not ready after the tests
    assert sum(part.limit for part in default) + waiting <= TOTAL < 7 * 60
    assert default[0].name == "tests" and default[0].limit <= 120
    assert [part.name for part in chosen([], True)] == [part.name for part in PARTS]
    assert [part.name for part in chosen(["kernels"], False)] == ["ceilings", "kernels"]
    assert [part.name for part in chosen(["multi30k"], False)] == ["multi30k"]


# ---- goals and the table -------------------------------------------------------------------------------------------


def results_of(**parts):
    about = {"card": {"name": "A card"}, "machine": "x", "python": "3", "versions": {"numpy": "2"}, "commit": "c"}
    found = {
        name: {"rows": rows, "state": "finished", "seconds": 1, "limit": 2, "error": None}
        for name, rows in parts.items()
    }
    return {"about": about, "rehearsal": False, "seconds": 3, "parts": found}


def timed(case, side, seconds, **more):
    return {"case": case, "side": side, "value": seconds, "unit": "s", **more}


def test_every_goal_of_the_issue_is_compared(gpu):
    from gpu.goals import comparison

    captured, work = "tensorlib, captured", {"flops": 4e12, "precision": "float32"}
    peers = ("PyTorch eager", "torch.compile", "JAX jit", "tensorlib")
    rows = [timed("small, float32", captured, 2.0, **work), *(timed("small, float32", name, 6.9) for name in peers)]
    rows += [timed("d 1024, bf16", captured, 2.0, **work), timed("d 1024, bf16", "PyTorch eager", 2.0)]
    rows += [timed("base, bf16", captured, 1.0, **work), timed("base, bf16", "PyTorch eager", 3.0)]
    parts = results_of(
        step=rows,
        ceilings=[
            {"case": "float32", "side": "ceiling", "value": 4e12, "unit": "FLOP/s"},
            {"case": "copy", "side": "ceiling", "value": 3e12, "unit": "B/s"},
        ],
        kernels=[{"case": "softmax_formula", "side": "tensorlib", "value": 1.5e12, "unit": "B/s"}],
        decode=[timed("small, greedy, batch 50", "tensorlib", 1.0), timed("small, greedy, batch 50", "MarianMT", 2.5)],
        long=[
            {"case": f"{n:,} positions, float32, memory", "side": "tensorlib", "value": n * b, "unit": "B"}
            for n, b in ((8192, 1), (16_384, 2))
        ],
        multi30k=[{"case": "de-en, ten epochs, greedy", "side": "tensorlib", "value": 38.0, "unit": "BLEU"}],
    )["parts"]
    found = {
        (row["case"], row["side"]): comparison(name, row, parts) for name, part in parts.items() for row in part["rows"]
    }
    assert found["small, float32", "PyTorch eager"][1:] == ("at least 3.5", False)  # 6.9 / 2.0 = 3.45
    assert found["small, float32", "torch.compile"].reached and found["small, float32", "JAX jit"].reached
    assert found["small, float32", "tensorlib"].reached  # as fast as PyTorch eager, uncaptured
    assert found["small, float32", captured].text == "50% of float32"
    assert found["d 1024, bf16", "PyTorch eager"].reached and found["base, bf16", "PyTorch eager"].reached
    assert found["softmax_formula", "tensorlib"] == ("50% of copy", "70%, or a reason", False)
    assert found["small, greedy, batch 50", "MarianMT"].reached
    assert found["16,384 positions, float32, memory", "tensorlib"].reached is False  # four times as much
    assert found["de-en, ten epochs, greedy", "tensorlib"].reached


def test_the_table_says_what_failed_and_what_is_missing(gpu):
    from gpu.report import failures, markdown

    results = results_of(
        step=[timed("small, float32", "JAX jit", 0.00341, least=0.003, most=0.004, tokens=2048, flops=95e9)],
        equal=[{"case": "three runs", "side": "tensorlib", "failed": "2 of 9 weights differ"}],
        long=[{"case": "8 positions", "side": "tensorlib", "missing": "no | such thing"}],
    )
    results["parts"]["memory"] = {"rows": [], "state": "out of time", "seconds": 9, "limit": 9, "error": "stopped"}
    text = markdown(results)
    assert "3.41 ms (3 ms .. 4 ms), 600,587 tokens/s, 27.9 TFLOP/s" in text
    assert "| equal | three runs | tensorlib | failed: 2 of 9 weights differ |" in text
    assert r"missing: no \| such thing" in text and "| memory |  |  | out of time: stopped |" in text
    assert failures(results["parts"]) == ["memory (out of time)", "equal: three runs, tensorlib"]
    assert "name A card" in text and "commit c" in text


# ---- the kernels and the tests that it runs ------------------------------------------------------------------------


def test_every_cuda_kernel_has_a_size_that_fills_the_card(gpu):
    sources = "".join(path.read_text() for path in (ROOT / "tensorlib/kernels/cuda").glob("*.py"))
    overridden = set(re.findall(r"^@overrides\((?:\w+\.)?(\w+)\)", sources, re.M))
    cases = "".join((BENCHMARKS / f"gpu/{name}.py").read_text() for name in ("kernel_cases", "product_cases"))
    listed = re.findall(r'^    "(\w+)": \{', cases, re.M)
    assert overridden and overridden <= set(listed)


TESTS = {
    "test_slow.py": (
        "import time, pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_cupy_slow(n): time.sleep(0.5)\n"
    ),
    "test_quick.py": (
        "import pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_cupy_quick(n): pass\n"
        "def test_cupy_fails(): assert 1 == 2\ndef test_cpu(): assert False\n"
    ),
    "test_absent.py": "import no_such_library\ndef test_cupy(): pass",
}


def test_tests_run_the_quickest_first_and_those_not_collected_are_named(gpu, monkeypatch):
    for name, text in TESTS.items():
        (gpu / name).write_text(text)
    report = gpu / "report.jsonl"
    plan = {"deadline": 0, "share": [0, 1], "report": str(report), "all": False}
    command = [sys.executable, "-m", "pytest", "-p", "gpu.quickest", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", "--rootdir", str(gpu), str(gpu)]
    for deadline in (0, 1e12):
        report.write_text("")
        monkeypatch.setenv("GPU_TESTS", json.dumps({**plan, "deadline": deadline}))
        subprocess.run(command, cwd=gpu, capture_output=True)
        lines = [json.loads(line) for line in report.read_text().splitlines()]
        assert {line.get("selected") for line in lines} >= {19}  # 9 slow, 9 quick, 1 that fails
        ran = [line["test"].rpartition("::")[2] for line in lines if "test" in line]
        assert bool(ran) == bool(deadline)
    (absent,) = (line for line in lines if "uncollected" in line)
    assert "test_absent.py" in absent["uncollected"] and "no_such_library" in absent["why"]
    assert len(ran) == 19 and ran.index("test_cupy_quick[8]") < ran.index("test_cupy_slow[1]")
    (failure,) = (line for line in lines if line.get("outcome") == "failed")
    assert "assert 1 == 2" in failure["why"]


# ---- the whole command ---------------------------------------------------------------------------------------------


def rehearse(out, stubs, *options, timeout=900):
    """Run `gpu.sh --rehearse`; return its status, its table and what is in the JSON."""
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(stubs), "TENSORLIB_THREADS": "1"}
    command = ["bash", str(BENCHMARKS / "gpu.sh"), "--rehearse", "--out", str(out), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert (out / "gpu.json").exists(), done.stderr
    return done.returncode, (out / "gpu.md").read_text(), json.loads((out / "gpu.json").read_text())


def test_the_rehearsal_runs_with_nothing_but_numpy_and_pytest(tmp_path):
    """What is not on the GPU machine, and the peers, are hidden: no part imports what it does not need."""
    names = ("torch", "jax", "transformers", "cyclopts", "tomli_w", "sentencepiece", "safetensors", "sacrebleu", "tqdm")
    for name in (*names, "threadpoolctl", "graphviz", "numba"):
        (tmp_path / f"{name}.py").write_text(f'raise ModuleNotFoundError("No module named {name}, hidden")')
    status, text, found = rehearse(tmp_path / "out", tmp_path)
    states = {name: (part["state"], part["error"]) for name, part in found["parts"].items()}
    assert set(states.values()) == {("finished", None)}, states
    failed = [row for part in found["parts"].values() for row in part["rows"] if "failed" in row]
    assert not failed and status == 0, failed
    rows = {(name, r["case"], r["side"]): r for name, part in found["parts"].items() for r in part["rows"]}
    assert rows["step", "small, float32", "tensorlib"]["value"] > 0
    assert rows["decode", "small, greedy, batch 2", "tensorlib"]["result"] > 0
    assert rows["kernels", "softmax_formula", "tensorlib"]["unit"] == "B/s"
    assert rows["equal", "three runs, float32", "tensorlib"]["text"] == "the same bits"
    assert "torch, hidden" in rows["step", "small, float32", "PyTorch eager"]["missing"]
    assert "jax, hidden" in rows["step", "small, float32", "JAX jit"]["missing"]
    assert "transformers, hidden" in rows["decode", "small, greedy, batch 2", "MarianMT"]["missing"] or (
        "torch, hidden" in rows["decode", "small, greedy, batch 2", "MarianMT"]["missing"]
    )
    assert "passed" in rows["tests", "on the GPU", "tests"]["text"]
    assert text.count("\n|") > 40 and "no figure means anything" in text


def test_a_part_that_does_not_exist_is_refused(tmp_path):
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu.sh"), "--only", "steps"],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "'steps' is not one of tests, step" in done.stderr
