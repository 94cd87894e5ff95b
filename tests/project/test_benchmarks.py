"""The benchmarks' machinery: figures that are counted or computed, and workers that answer. No test asserts a time."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"

FAKE = """
from contestants import Contestant

def build(start=0):
    count = [start]

    def step():
        count[0] += 1
        print("a library that talks")
        return count[0]

    return Contestant("fake 1.0", {"step": step, "broken": lambda: 1 / 0}, lambda: {"n": count[0]})

def absent():
    import no_such_library
"""


def imported(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    module = __import__(name)
    for new in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[new], "__file__", "")):
            monkeypatch.delitem(sys.modules, new)
    return module


@pytest.fixture
def measure(monkeypatch):
    return imported("measure", monkeypatch)


@pytest.fixture
def sizes(monkeypatch):
    return imported("sizes", monkeypatch)


@pytest.fixture
def fake(tmp_path, measure):
    """Return a function that starts a fake contestant."""
    (tmp_path / "fake.py").write_text(FAKE)
    env = measure.environment(1)
    env["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    return lambda function="build", **arguments: measure.Worker(f"fake:{function}", arguments, env)


# ---- counting ----------------------------------------------------------------------------------------------------


def test_the_work_of_a_step_counted_by_hand(sizes):
    size = sizes.Size(width=2, heads=1, feed_forward=3, layers=1, vocabulary=5, batch=1, length=2)
    product = 2 * 2 * 2 * 2  # 2 tokens, width 2 to 2
    attention = 4 * product + 2 * (2 * 2 * 2 * 2)  # four projections; scores and sums: 2 x 2 positions, width 2
    feed_forward = 2 * (2 * 2 * 2 * 3)
    forward = (attention + feed_forward) + (2 * attention + feed_forward) + 2 * 2 * 2 * 5
    assert sizes.step_flops(size) == 3 * forward


@pytest.mark.peers
def test_the_work_of_a_step_is_what_pytorch_counts_for_the_same_model(sizes, measure):
    pytest.importorskip("torch")
    size = sizes.Size(8, 2, 12, 2, 30, 3, 5)
    count = f"""
from contestants.torch_step import step
from torch.utils.flop_counter import FlopCounterMode
run = step({list(size)}).steps["step"]
with FlopCounterMode(display=False) as counter:
    run()
print(counter.get_total_flops())
"""  # in a separate process: counting leaves traces in the environment
    assert int(run(measure, "-c", count)) == sizes.step_flops(size)


def test_sizes_are_those_of_the_published_table(sizes):
    assert sizes.SIZES["tiny"] == (64, 4, 256, 2, 1000, 32, 16)
    assert sizes.SIZES["small"] == (256, 4, 1024, 3, 8000, 64, 32)
    assert sizes.SIZES["base"] == (512, 8, 2048, 6, 10000, 32, 32)


def test_a_batch_is_shifted_by_one_and_has_no_padding(sizes):
    source, target_in, target_out = sizes.batch_of(sizes.SIZES["tiny"])
    assert source.shape == target_in.shape == target_out.shape == (32, 16)
    np.testing.assert_array_equal(target_in[:, 1:], target_out[:, :-1])
    assert min(source.min(), target_in.min(), target_out.min()) >= 4


def test_medians_quartiles_and_ratios(measure):
    assert measure.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert measure.quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert measure.ratios({"tensorlib": 2.0, "peer": 5.0}) == {"tensorlib": 1.0, "peer": 2.5}
    assert measure.ratios({"peer": 5.0}) == {}


def test_a_turn_is_a_step_that_does_not_count_and_enough_that_do(measure):
    assert measure.per_turn(10.0) == 2
    assert measure.per_turn(measure.TURN / 4) == 5
    assert measure.per_turn(1e-9) == 51


def test_times_and_tables_read_well(measure):
    assert [measure.duration(s) for s in (12.0, 0.0123, 4.5e-6)] == ["12.0 s", "12.3 ms", "4.50 us"]
    assert measure.megabytes(1_234_500_000) == "1,234 MB"
    lines = measure.table(["op", "ms"], [["softmax", "1.0"], ["add", "20.0"]]).splitlines()
    assert lines == ["| op      |   ms |", "|---------|-----:|", "| softmax |  1.0 |", "| add     | 20.0 |"]


@pytest.mark.parametrize("coretype, expected", [("unset", None), ("asis", "Zen"), ("Haswell", "Haswell")])
def test_the_kernels_that_openblas_will_use(measure, monkeypatch, coretype, expected):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Zen")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    env = measure.environment(3, coretype, TENSORLIB_KERNELS="0")
    assert env.get("OPENBLAS_CORETYPE") == expected
    assert ("OPENBLAS_L2_SIZE" in env) == (coretype != "unset")
    assert env["OMP_NUM_THREADS"] == env["TENSORLIB_THREADS"] == "3" and env["TENSORLIB_KERNELS"] == "0"


# ---- workers -----------------------------------------------------------------------------------------------------


def test_a_worker_runs_steps_and_describes_itself(fake):
    with fake(start=5) as worker:
        assert worker.ready["library"] == "fake 1.0" and worker.ready["resident"] > 0
        assert len(worker.run(count=3)) == 3 and worker.value == 8
        assert len(worker.run(count=2, calls=4)) == 2 and worker.value == 16
        found = worker.finish()
        assert found["n"] == 16 and found["peak"] >= worker.ready["resident"]
    assert worker.process.poll() is not None


def test_workers_take_turns(measure, fake, monkeypatch):
    monkeypatch.setattr(measure, "REST", 0)
    monkeypatch.setattr(measure, "per_turn", lambda seconds: 3)
    with fake() as a, fake(start=100) as b:
        times = measure.interleave({"a": a, "b": b}, rounds=4, warmups=2)
        assert {name: len(t) for name, t in times.items()} == {"a": 8, "b": 8}
        assert (a.value, b.value) == (2 + 4 * 3, 100 + 2 + 4 * 3)


def test_a_machine_that_is_not_idle_gets_a_warning(measure, monkeypatch, capsys):
    worker = type("Worker", (), {"process": type("Process", (), {"pid": 1})})
    for busy, stolen in [(2.05, 0.0), (3.0, 0.0), (2.0, 0.5)]:
        disturbance = measure.Disturbance()
        moments = iter([(10.0, 5.0, 100.0, 0.0), (11.0, 7.0, 100.0 + busy, stolen)])  # the worker: 2 cores for 1 second
        monkeypatch.setattr(disturbance, "_now", lambda pid, moments=moments: next(moments))
        with disturbance.watched(worker):
            pass
        disturbance.warn()
    first, second = capsys.readouterr().out.splitlines()
    assert "other processes took 100% of a core and the host 0%" in first and "the host 50%" in second


def test_a_step_that_fails_says_why(fake):
    with fake() as worker, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        worker.run("broken")


def test_a_library_that_is_not_installed_is_left_out(measure, fake, capsys):
    with measure.started({"real": fake, "peer": lambda: fake("absent")}) as workers:
        assert list(workers) == ["real"]
    assert "peer is left out: No module named 'no_such_library'" in capsys.readouterr().out


# ---- whole programs ----------------------------------------------------------------------------------------------


def run(measure, *command):
    env = measure.environment(1)
    env["PYTHONPATH"] += f"{os.pathsep}{BENCHMARKS}"
    done = subprocess.run([sys.executable, *command], cwd=BENCHMARKS.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_step_can_be_measured(measure, tmp_path):
    file = tmp_path / "times.json"
    options = ["--rounds", "1", "--threads", "1", "--only", "tensorlib", "BLAS peak", "--json", str(file)]
    text = run(measure, "benchmarks/step.py", "tiny", *options)
    assert "OPENBLAS_CORETYPE=unset" in text and "of the peak" in text
    found = json.loads(file.read_text())["tiny"]
    assert found["tensorlib"]["seconds"] and found["BLAS peak"]["flops"] == 2 * 2048**3
    assert 6 < found["tensorlib"]["value"] < 8  # about log 1000


def test_losses_of_runs_are_compared(monkeypatch):
    curves = imported("curves", monkeypatch)
    on, off = curves.Run([2.0, 1.0], "x"), curves.Run([2.0, 1.0005], "y")
    runs = {(kind, threads): off if kind == "0" else on for kind in ("numba", "numpy", "0") for threads in (1, 2)}
    text, agree = curves.report(runs, steps=2)
    assert agree and text.count("at most 5.0e-04") == 2 and "compiled kernels, 1 and 2 threads: the same bits" in text
    other = curves.Run([2.0, 1.0005], "z")
    text, agree = curves.report({**runs, ("0", 2): other}, steps=2)
    assert agree and "no kernels, 1 and 2 threads: NOT the same bits" in text
    far = curves.Run([2.0, 1.1], "y")
    assert not curves.report({**runs, ("0", 1): far, ("0", 2): far}, steps=2)[1]
    text, agree = curves.report({**runs, ("numba", 2): off}, steps=2)
    assert not agree and "compiled kernels, 1 and 2 threads: NOT the same bits" in text


def test_cached_keys_and_values_are_checked_against_the_whole_prefix(monkeypatch, sizes):
    decode = imported("decode", monkeypatch)
    decoding = imported("contestants.ours_decoding", monkeypatch).ours_decoding
    size = sizes.Size(8, 2, 12, 1, 30, 1, 1)
    batches = decode.batches_of(size, sentences=5, batch=3)
    assert [len(b) for b in batches] == [3, 2] and all(s[-1] == decode.EOS for b in batches for s in b)
    contestant = decoding.decoding(size, batches)
    tokens = sum(len(b) * max(map(len, b)) for b in batches)
    assert contestant.steps["step"]() == tokens == decoding.decoding(size, batches, beam=3).steps["step"]()
    found = contestant.steps["check"]()
    assert found["tokens"] == tokens and found["different"] == 0 and found["farthest"] <= decode.CLOSE


@pytest.mark.peers
@pytest.mark.parametrize("beam", [1, 3])
def test_ctranslate2_decodes_with_the_same_weights(beam, monkeypatch, sizes):
    if find_spec("ctranslate2") is None:
        pytest.skip("needs ctranslate2")
    decode = imported("decode", monkeypatch)
    size = sizes.Size(16, 2, 24, 2, 40, 1, 1)
    arguments = {"size": size, "batches": decode.batches_of(size, sentences=12, batch=6), "beam": beam}
    sides = [decode.SIDES[side] for side in (decode.OURS, decode.CTRANSLATE)]
    with decode.Worker(sides[0], arguments, {}) as ours, decode.Worker(sides[1], arguments, {}) as theirs:
        assert decode.agreement(ours, theirs) == (12, 12)


def test_one_size_is_changed_at_a_time(monkeypatch):
    scaling = imported("scaling", monkeypatch)
    for what, values in scaling.POINTS.items():
        for value in values:
            function, arguments = scaling.arguments_of(what, value)
            if function == "step":
                changed = sum(a != b for a, b in zip(arguments["size"], scaling.CENTRE, strict=True))
                assert changed <= (3 if what == "width" else 1)
                assert arguments["size"].width % arguments["size"].heads == 0


def test_every_op_that_is_compared_exists_on_both_sides(monkeypatch):
    shapes = imported("contestants.shapes", monkeypatch).shapes
    source = {side: (BENCHMARKS / "contestants" / f"{side}_ops.py").read_text() for side in ("ours", "torch")}
    for name in shapes.SHAPES:
        for side, text in source.items():
            assert f'"{name}":' in text, f"{name} is missing in {side}_ops.py"


def output_of(program, *arguments):
    """Return what a benchmark prints, on one thread."""
    environment = {**os.environ, "TENSORLIB_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.peers
def test_a_language_model_learns_as_the_same_model_in_pytorch(tmp_path):
    """From the same weights and batches. Its exit status says that the perplexities agree."""
    pytest.importorskip("torch")
    train, valid = tmp_path / "train.txt", tmp_path / "valid.txt"
    train.write_text("the cat sees a dog\na dog sees the cat\n" * 40, encoding="utf-8")
    valid.write_text("the dog sees a cat\n" * 8, encoding="utf-8")
    sizes = ("--layers", 1, "--width", 16, "--heads", 2, "--feed-forward", 16, "--context", 16)
    few = ("--steps", 12, "--vocabulary", 270, "--batch", 2, "--tokens", 4, "--texts", 1, 2)
    printed = output_of("language.py", train, valid, *sizes, *few)
    assert "tensorlib" in printed and "PyTorch" in printed and "after 12 steps" in printed


def test_both_losses_of_word_vectors_are_timed():
    few = ("--words", 50, "--width", 4, "--negatives", 2, "--rounds", 1, "--threads", 1)
    printed = output_of("embeddings.py", *few)
    assert (
        "negative-sampling, 2,048 pairs" in printed and "softmax, 512 pairs" in printed and "times as many" in printed
    )
