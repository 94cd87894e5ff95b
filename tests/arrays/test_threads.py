"""The thread pool: equal bits with any number of threads, errors and settings pass through, BLAS is restored."""

import os
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import nn
import tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from nn import optim
from tensorlib.arrays.threads import BLAS, share
from tensorlib.kernels import chosen
from tests import ROOT
from tests.conftest import only_for_numpy


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


# ---- sharing work ----


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_piece_is_worked_on_once(number):
    done = []
    with tl.threads(number):
        share(done.append, range(100))
    assert sorted(done) == list(range(100))


def test_pieces_run_at_the_same_time():
    both = threading.Barrier(2, timeout=30)  # one thread alone would time out
    with tl.threads(2):
        share(lambda piece: both.wait(), [0, 1])


def test_an_error_in_a_piece_reaches_the_caller_and_the_workers_survive():
    def work(piece):
        if piece == 3:
            raise ValueError("piece 3")

    with tl.threads(3):
        for _ in range(20):
            with pytest.raises(ValueError, match="piece 3"):
                share(work, range(8))
        test_every_piece_is_worked_on_once(3)


def test_an_interrupt_of_the_caller_leaves_the_workers_usable():
    caller = threading.current_thread()

    def work(piece):
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        time.sleep(0.01)

    with tl.threads(2):
        with pytest.raises(KeyboardInterrupt):
            share(work, range(4))
        test_every_piece_is_worked_on_once(2)


def test_nested_shares_end():
    done = []
    with tl.threads(3):
        share(lambda i: share(lambda k: done.append((i, k)), range(5)), range(5))
    assert len(done) == 25


def test_errstate_holds_in_all_threads():
    x = np.full(100, 1e38, np.float32)
    with tl.threads(3), warnings.catch_warnings():
        warnings.simplefilter("error")
        with np.errstate(over="ignore"):
            share(lambda piece: x * x, range(50))


def test_several_threads_may_share_work_at_once():
    totals = [0] * 4

    def user(i):
        for _ in range(50):
            parts = [0] * 10

            def work(piece, parts=parts):
                parts[piece] = piece

            share(work, range(10))
            totals[i] += sum(parts)

    users = [threading.Thread(target=user, args=(i,)) for i in range(4)]
    for one in users:
        one.start()
    for one in users:
        one.join()
    assert totals == [50 * 45] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_its_own_workers():
    code = (
        "import os, tensorlib as tl\n"
        "from tensorlib.arrays.threads import share\n"
        "with tl.threads(3):\n"
        "    share(lambda piece: None, range(9))\n"
        "    child = os.fork()\n"
        "    done = []\n"
        "    share(done.append, range(9))\n"
        "    assert len(done) == 9\n"
        "    if child: raise SystemExit(os.waitpid(child, 0)[1])\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, cwd=ROOT)


# ---- the number of threads ----


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "two"])
def test_the_number_must_be_one_or_more(number):
    with (
        pytest.raises(ValueError, match=r"threads: the number must be an integer of at least 1, got"),
        tl.threads(number),
    ):
        pass


def test_the_number_holds_inside_and_in_this_thread_only():
    outside, seen = tl.thread_count(), []
    with tl.threads(7):
        other = threading.Thread(target=lambda: seen.append(tl.thread_count()))
        other.start()
        other.join()
        assert tl.thread_count() == 7
    assert tl.thread_count() == outside and seen == [outside]


@pytest.mark.parametrize(
    "given, message", [("3", ""), ("0", "at least 1, got '0'"), ("many", "at least 1, got 'many'")]
)
def test_the_environment_sets_the_number(given, message):
    code = "import tensorlib as tl; print(tl.thread_count())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TENSORLIB_THREADS": given},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (message in done.stderr and done.returncode) if message else done.stdout == f"{given}\n"


# ---- BLAS ----


def test_blas_is_limited_to_one_thread_inside_and_restored():
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with tl.threads(2):
            assert set(blas_threads()) <= {1}
            with BLAS:
                pass
            assert set(blas_threads()) <= {1}
        assert blas_threads() == before
        with pytest.raises(RuntimeError, match="inside"), tl.threads():
            raise RuntimeError("inside")
        assert blas_threads() == before
        tl.Tensor(np.ones((300, 300), "float32")) @ tl.Tensor(np.ones((300, 300), "float32"))
        assert blas_threads() == before


# ---- the same bits ----

STEPS = """
import hashlib, numpy as np, tensorlib as tl
from models.architectures.transformer import Transformer, TransformerConfig
from nn import optim
from tensorlib.arrays.threads import BLAS

tl.seed(0)
model = Transformer(TransformerConfig(900, 900, 2, 64, 4, 256, dropout=0.1), tl.default_generator())
optimizer = optim.Adam(model.named_parameters(), 1e-3)
ids = np.random.default_rng(0).integers(4, 900, (24, 45))
ids[::3, 30:] = 0
for _ in range(2):
    optimizer.zero_grad()
    tl.cross_entropy(model(ids, ids), ids, 0, 0.1).backward()
    model.loss(ids, ids, ids, 0.1).backward()
    optimizer.step()
print(hashlib.sha256(b"".join(a.tobytes() for a in model.state_dict().values())).hexdigest())
"""


RECURRENT = """
import hashlib, numpy as np, nn, tensorlib as tl

digest, rng = hashlib.sha256(), np.random.default_rng(0)
for kind in (nn.LSTM, nn.GRU):
    for sentences, units in ((40, 150), (8, 100)):  # cut in two, and not
        model = kind(units, units, 2, generator=tl.Generator(1))
        x = tl.Tensor(rng.standard_normal((sentences, 4, units)).astype("float32"), requires_grad=True)
        first = [tl.Tensor(rng.standard_normal((2, sentences, units)).astype("float32"), requires_grad=True)] * 2
        h, _ = model(x, first[0] if kind is nn.GRU else tuple(first))
        (h * h).sum().backward()
        for array in (h, x.grad, first[0].grad, *[p.grad for p in model.parameters()]):
            digest.update(array.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("program", [STEPS, RECURRENT], ids=["transformer", "recurrent"])
def test_bits_do_not_depend_on_the_number_of_threads(program):
    """Neither on ours nor on those of BLAS."""
    found = set()
    for ours, blas in ((1, 1), (2, 2), (8, 1), (1, 2)):
        numbers = {"TENSORLIB_THREADS": str(ours), "OPENBLAS_NUM_THREADS": str(blas), "OMP_NUM_THREADS": str(blas)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **numbers},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


SHARING = {
    "numpy": {"linalg", "blocks", "attention", "linear_cross_entropy", "recurrent"},
    "numba": {"rows", "feed_forward", "multi_head_attention"},
}


@pytest.mark.parametrize("technology", SHARING)
def test_the_sample_of_bits_is_large_enough_to_be_shared(technology, monkeypatch):
    """Otherwise the test above would compare one thread with itself."""
    if technology == "numba" and chosen() != "numba":
        pytest.skip("no compiled kernels here")
    kernels = set()
    for module in SHARING[technology]:

        def spy(work, pieces, module=module):
            if len(pieces) > 1:
                kernels.add(module)
            for piece in pieces:
                work(piece)

        monkeypatch.setattr(f"tensorlib.kernels.{technology}.{module}.share", spy)
    with only_for_numpy() if technology == "numpy" else nullcontext():
        run_all_kernels()
    assert kernels == SHARING[technology]


def run_all_kernels():
    model = Transformer(TransformerConfig(900, 900, 2, 64, 4, 256, dropout=0.1))
    optimizer = optim.Adam(model.named_parameters(), 1e-3)
    ids = np.random.default_rng(0).integers(4, 900, (24, 45))
    model.loss(ids, ids, ids).backward()
    tl.cross_entropy(model(ids, ids), ids).backward()
    optimizer.step()
    nn.GRU(150, 150)(np.zeros((40, 2, 150), "float32"))


# ---- when the system refuses threads, and after a fork ----


def test_work_is_done_although_no_thread_can_be_started():
    code = (
        "import threading\n"
        "import tensorlib as tl\n"
        "from tensorlib.arrays.threads import share\n"
        "started = threading.Thread.start\n"
        'def start(thread): raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = start\n"
        "done = []\n"
        "with tl.threads(4):\n"
        "    share(done.append, range(10))\n"
        "    threading.Thread.start = started\n"
        "    share(done.append, range(10))\n"
        "assert sorted(done) == sorted([*range(10)] * 2)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_another_thread_limits_blas_has_it_restored():
    code = (
        "import os, threading\n"
        "import tensorlib as tl\n"
        "from threadpoolctl import threadpool_info, threadpool_limits\n"
        "def numbers(): return [x['num_threads'] for x in threadpool_info() if x['user_api'] == 'blas']\n"
        "threadpool_limits(2, 'blas')\n"
        "before, inside, end = numbers(), threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with tl.threads(2): inside.set(); end.wait()\n"
        "other = threading.Thread(target=hold)\n"
        "other.start(); inside.wait()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    assert numbers() == before\n"
        "    with tl.threads(2): assert set(numbers()) <= {1}\n"
        "    os._exit(0 if numbers() == before else 1)\n"
        "end.set(); other.join()\n"
        "raise SystemExit(os.waitpid(child, 0)[1])\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60, cwd=ROOT)


def test_the_command_reports_a_wrong_number_in_the_environment_in_one_line():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from models.cli.main import main; sys.exit(main(['train', '--steps', '1']))",
        ],
        env={**os.environ, "TENSORLIB_THREADS": "two"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout
    required = "TENSORLIB_THREADS: must be an integer of at least 1"
    assert done.stderr == f"tensorlib: {required}, got 'two'; unset it to use all processors\n"
