"""Fixtures for all tests: array kinds, and a check that no test changes global state."""

import contextlib
import os
import signal
import warnings

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.backend import get_backend
from tensorlib.arrays.random import default_generator
from tensorlib.kernels import chosen, enabled, overridable
from tensorlib.kernels.numba import replaced
from tests import emulated_gpu
from tests.strict import STRICT

emulated_gpu.install()  # before anything asks for CuPy

# A process started in the background of a script, or under nohup, ignores signals, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):  # Windows has none
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


with_kernels = pytest.mark.skipif(not enabled(), reason="TENSORLIB_KERNELS=0 registers no kernels")


def backend_named(name):
    """Return a backend by name, or skip the test with the reason why this machine lacks it."""
    if name == "strict":
        return STRICT
    try:
        return get_backend(name)
    except RuntimeError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def only_for_numpy():
    """Register the kernels for NumPy that compiled ones have replaced; then the compiled ones again."""
    compiled = {formula: formula.registry[np.ndarray] for formula in overridable().values() if replaced(formula)}
    try:
        for formula in compiled:
            formula.register(np.ndarray, replaced(formula))
        yield
    finally:
        for formula, kernel in compiled.items():
            formula.register(np.ndarray, kernel)


@pytest.fixture(scope="session", autouse=True)
def cupy_is_initialized():
    """Use the GPU once, if there is one: on its first use CuPy changes the warning filters."""
    with contextlib.suppress(RuntimeError):
        gpu = get_backend("cupy")
        (gpu.asarray([1.0]) + 1).sum()


@pytest.fixture(scope="session", autouse=True)
def numba_is_imported():
    """Import Numba once, where its kernels run: it changes the environment then."""
    if chosen() == "numba":
        import numba  # noqa: F401


@pytest.fixture(params=["numpy", "strict", "cupy"])
def backend(request):
    """Each array kind: NumPy, a stand-in that refuses what CuPy refuses, and CuPy if a GPU answers."""
    return backend_named(request.param)


@pytest.fixture
def stand_in():
    """Return NumPy in the place of oneDNN, with the list of the products in bf16 that it is asked for."""
    if chosen() != "numba":
        pytest.skip("no compiled kernels here")
    from tests.kernels.onednn_stand_in import connected

    made = connected()
    made.shapes.clear(), made.limits.clear()
    return made


@pytest.fixture(autouse=True)
def no_leaked_state():
    """Fail a test that changes global state, and restart the default generator for each test."""
    environment = dict(os.environ)
    floating_errors = np.geterr()
    filters = list(warnings.filters)
    state = default_generator().state
    tl.seed(0)
    yield
    default_generator().state = state
    leaked = []
    if not tl.is_grad_enabled():
        leaked.append("grad mode is off")
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    if changed := changed - {"PYTEST_CURRENT_TEST"}:
        leaked.append(f"the environment differs in {', '.join(sorted(changed))}")
    if np.geterr() != floating_errors:
        leaked.append("np.seterr was changed")
    if warnings.filters != filters:
        leaked.append("the warning filters were changed")
    assert not leaked, f"this test leaks global state: {'; '.join(leaked)}"
