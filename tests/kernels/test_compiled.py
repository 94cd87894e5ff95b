"""The kernels that Numba compiles: their functions of one number, random bits, products, and the code kept on disk."""

import math
import os
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest

from tensorlib.arrays.philox import philox_bits
from tensorlib.arrays.threads import BLAS
from tensorlib.kernels import chosen, overridable
from tensorlib.kernels.numba import replaced
from tests import ROOT
from tests.kernels.samples import SAMPLES

if chosen() != "numba":
    pytest.skip("no compiled kernels here", allow_module_level=True)

from tensorlib.kernels.numba import elementary
from tensorlib.kernels.numba.blas import FOUND, multiply
from tensorlib.kernels.numba.compiling import compiled
from tensorlib.kernels.numba.dropout import mask_of, room_for_bits, write_bits

ULP = {"exp": 2, "tanh": 2, "erf": 2, "sigmoid": 4}  # as the docstring of elementary.py says
EXACT = {"exp": np.exp, "tanh": np.tanh, "erf": np.vectorize(math.erf), "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


def for_each(name):
    """Return a function that applies one of elementary.py to all elements of an array."""
    function = getattr(elementary, name)

    @compiled
    def run(x, y):
        for i in range(x.size):
            y[i] = function(x[i])

    def apply(x):
        y = np.empty_like(x)
        run(x, y)
        return y

    return apply


def numbers():
    """Return float32 numbers of every size, and many near 0, where most of them are used."""
    rng = np.random.default_rng(0)
    every = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    near = [rng.uniform(-size, size, 100_000).astype(np.float32) for size in (0.1, 2, 20, 100)]
    return np.concatenate([every[np.isfinite(every)], *near])


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered")
@pytest.mark.parametrize("name", ULP)
def test_float32_is_accurate_to_a_few_units_in_the_last_place(name):
    x = numbers()
    exact = EXACT[name](x.astype(np.float64))
    expected = exact.astype(np.float32)
    unit = np.spacing(np.clip(np.abs(expected), np.finfo("f").tiny, np.finfo("f").max)).astype(np.float64)
    y = for_each(name)(x)
    errors = np.where(y == expected, 0, np.abs(y.astype(np.float64) - exact) / unit)
    assert errors.max() <= ULP[name], f"x = {x[errors.argmax()]}: {errors.max():.2f} ulp"
    assert errors.max() > 0.5  # it is compared with something more exact


@pytest.mark.parametrize("name", ULP)
def test_float64_is_that_of_the_c_library(name):
    x = np.random.default_rng(0).uniform(-30, 30, 2000)
    np.testing.assert_allclose(for_each(name)(x), EXACT[name](x), rtol=1e-14)


@pytest.mark.parametrize(("name", "limits"), [("exp", (0, math.inf)), ("tanh", (-1, 1)), ("erf", (-1, 1)),
                                              ("sigmoid", (0, 1))])  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinity_and_nan(name, limits, dtype):
    y = for_each(name)(np.array([-math.inf, math.inf, math.nan, -1e30, 1e30], dtype))
    np.testing.assert_array_equal(y, np.array([*limits, math.nan, *limits], dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_ordered_as_their_integers(dtype):
    x = np.sort(np.append(np.random.default_rng(0).normal(size=100), [-math.inf, -1e30, -0.0, 1e-40, math.inf]))
    x = x.astype(dtype)
    integers = np.array([_integer(n) for n in x])
    assert (np.diff(integers) > 0).all()
    assert [_number(n) for n in x] == x.tolist()


@compiled
def _integer(x):
    return elementary.in_order(x)


@compiled
def _number(x):
    return elementary.out_of_order(elementary.in_order(x))


@pytest.mark.parametrize("start", [0, 1, 15, 16, 1000, 2**33, 2**62])
@pytest.mark.parametrize(("key", "draw"), [(0, 0), (7, 2**40), (2**127 + 5, 3)])
def test_random_bits_are_those_of_numpy(key, draw, start):
    bits = write_bits(mask_of(0.1, key, draw), start, 333, room_for_bits(333))
    np.testing.assert_array_equal(bits, philox_bits(key, draw, start, 333))


@pytest.mark.skipif(not FOUND, reason="NumPy has another BLAS")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_matrices_in_every_layout(dtype):
    rng = np.random.default_rng(0)

    def layouts(n, m):
        wide = rng.normal(size=(n, m + 3)).astype(dtype)
        yield from (wide[:, :m], np.asfortranarray(wide[:, :m]), wide[:, 1 : m + 1].copy(), wide[:, 2 : m + 2])

    for n, k, m in ((3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (70, 40, 50)):
        for x in layouts(n, k):
            for y in layouts(k, m):
                for room in (np.empty((n, m), dtype), np.empty((n, m + 2), dtype)[:, 1:-1]):
                    with BLAS:
                        multiply(x, y, room)
                    np.testing.assert_allclose(room, x @ y, rtol=0, atol=1e-4 if dtype == "float32" else 1e-12)


def read_only(value):
    if isinstance(value, tuple):
        parts = [read_only(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, dict):
        return {name: read_only(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
    return value


WRITTEN = {"decoder_step": 2}  # the argument that a kernel writes to
COMPILED = [name for name in sorted(overridable()) if replaced(overridable()[name]) and not name.endswith("update")]


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("name", COMPILED)
def test_arguments_may_be_read_only(name):
    """Numba takes read-only arrays for another type; the optimizers' own arrays are not among the arguments here."""
    formula = overridable()[name]
    for arguments in islice(SAMPLES[name](np.random.default_rng(0), "float32"), 12):
        for given in (arguments, [a if i == WRITTEN.get(name) else read_only(a) for i, a in enumerate(arguments)]):
            options = given[-1] if isinstance(given[-1], dict) else {}
            formula(*given[: len(given) - bool(options)], **options)


# ---- in other processes ------------------------------------------------------------------------------------------

STEP = """
import numpy as np, tensorlib as tl
x = tl.Tensor(np.ones((600, 8), "float32"), requires_grad=True)
tl.layer_norm(x).sum().backward()
from tensorlib.kernels.numba import normalize
stats = normalize.layer_norm_rows.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def run(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def test_machine_code_is_kept_on_disk(tmp_path):
    first, second = (run(STEP, NUMBA_CACHE_DIR=str(tmp_path)).stdout.split() for _ in range(2))
    assert first == ["0", "1"] and second == ["1", "0"]


def test_every_source_file_counts_for_the_code_on_disk(tmp_path, monkeypatch):
    from tensorlib.kernels.numba import compiling

    folder = tmp_path / "numba"
    folder.mkdir()
    (folder / "compiling.py").write_text("", encoding="utf-8")
    (folder / "other.py").write_text("a = 1", encoding="utf-8")
    monkeypatch.setattr(compiling, "__file__", str(folder / "compiling.py"))
    before = compiling._digest_of_sources.__wrapped__()
    (folder / "other.py").write_text("a = 2", encoding="utf-8")
    assert compiling._digest_of_sources.__wrapped__() != before


def test_without_numba_the_kernels_for_numpy_run():
    code = "import sys; sys.modules['numba'] = None\nfrom tensorlib.kernels import chosen\nimport tensorlib as tl\n"
    code += "print(chosen(), tl.softmax([0.0, 1.0]).numpy())"
    assert run(code, TENSORLIB_KERNELS="").stdout == "numpy [0.2689414 0.7310586]\n"


def test_a_numba_that_cannot_be_imported_is_named_once(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1')", encoding="utf-8")
    code = "import tensorlib as tl\nfor _ in range(2):\n"
    code += "    print(tl.softmax([0.0, 1.0]).numpy(), tl.layer_norm([1.0, 2.0]).shape)"
    done = run(code, PYTHONPATH=str(tmp_path), TENSORLIB_KERNELS="")
    assert done.stdout == 2 * "[0.2689414 0.7310586] (2,)\n"
    assert done.stderr.count("no compiled kernels, because Numba cannot be imported: Numba needs NumPy 1") == 1


def test_numba_is_imported_only_when_a_kernel_runs():
    code = "import sys, tensorlib as tl\nx = tl.ones((2, 3)) + 1\nprint('numba' in sys.modules)\n"
    code += "tl.softmax(x)\nprint('numba' in sys.modules)"
    assert run(code).stdout == "False\nTrue\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_as_its_parent():
    code = (
        "import os, numpy as np, tensorlib as tl\n"
        "def step():\n"
        "    x = tl.Tensor(np.ones((3000, 64), 'float32'), requires_grad=True)\n"
        "    w = [tl.Tensor(np.eye(64, dtype='float32')), tl.zeros(64)] * 2\n"
        "    tl.feed_forward(tl.layer_norm(x), *w, 0.1, tl.Generator(0)).sum().backward()\n"
        "    return x.grad.numpy()\n"
        "with tl.threads(2):\n"
        "    before = step()\n"
        "    child = os.fork()\n"
        "    same = (step() == before).all()\n"
        "    if not child: os._exit(0 if same else 1)\n"
        "    assert same and os.waitpid(child, 0)[1] == 0\n"
    )
    run(code)


def test_a_program_with_kernels_does_not_change_the_terminal():
    code = STEP + "import os, sys\ninitialise = sys.modules.get('colorama.initialise')\n"
    code += "print(initialise is not None and initialise.atexit_done)\n"
    code += "print('NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING' in os.environ)\n"
    assert run(code).stdout.splitlines()[-2:] == ["False", "False"]


AHEAD = """
import numpy as np
from tensorlib.kernels.numba.ahead import compile_ahead
compile_ahead().join()
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, e): compiled.append(str(e.data["dispatcher"].py_func.__qualname__))
    def on_end(self, e): pass
event.register("numba:compile", Listener())
import models, tensorlib as tl
from nn import optim
model = models.Transformer(models.TransformerConfig(400, 400, layers=1, width=16, heads=2, feed_forward=32))
optimizer, ids = optim.Adam(model.named_parameters()), np.ones((20, 30), int)
for _ in range(2):
    optimizer.zero_grad()
    model.loss(ids, ids, ids, 0.1).backward()
    optimizer.step()
models.beam_search(model, ids.tolist(), beam=1, max_length=3)
print(compiled)
"""


def test_what_is_compiled_ahead_is_all_that_a_step_and_decoding_need():
    assert run(AHEAD).stdout == "[]\n"
