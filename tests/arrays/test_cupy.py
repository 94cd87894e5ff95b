"""How CuPy's backend is opened, with a fake module in place of CuPy: no GPU is needed."""

import sys
from functools import cache, singledispatch
from types import ModuleType, SimpleNamespace

import pytest

from tensorlib import arrays
from tensorlib.arrays import backend, cupy


def fake_cupy(count_devices):
    """Return a module that stands in for CuPy, with a function in place of ``getDeviceCount``."""
    module = ModuleType("cupy")
    module.ndarray = type("ndarray", (), {"__module__": "cupy"})
    module.cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count_devices))
    return module


def no_driver():
    raise OSError("CUDA driver version is insufficient\nsecond line")


@pytest.fixture
def plant(monkeypatch):
    """Return a function that puts a fake module in place of CuPy; afterwards nothing of it is left."""
    monkeypatch.setattr(backend, "_loaded", cache(backend._loaded.__wrapped__))  # a cache for this test alone
    monkeypatch.setitem(backend._ON_FIRST_USE, "cupy", [])
    stands_in = SimpleNamespace(fetch_later=None, CudaRecorder=None)
    for name in ("cuda", "cupy_graphs"):  # these import CuPy
        monkeypatch.setattr(arrays, name, stands_in, raising=False)
    registry = singledispatch(backend.backend_of.dispatch(object))
    for module in (backend, cupy):
        monkeypatch.setattr(module, "backend_of", registry)

    def put(module):
        monkeypatch.setitem(sys.modules, "cupy", module)
        return module

    return put


# ---- where it cannot be opened -----------------------------------------------------------------------------------


def test_without_cupy_the_error_names_the_package_to_install(plant):
    plant(None)
    message = r"backend: 'cupy' needs CuPy, which is not installed; pip install 'tensorlib\[cuda\]', or use 'numpy'"
    for use in (cupy.open_backend, lambda: backend.get_backend("cupy")):
        with pytest.raises(RuntimeError, match=message):
            use()


@pytest.mark.parametrize(
    ("count_devices", "reason"),
    [(no_driver, r"none answered \(CUDA driver version is insufficient\)"), (lambda: 0, "found 0")],
)
def test_without_a_gpu_the_error_says_so(plant, count_devices, reason):
    plant(fake_cupy(count_devices))
    for use in (cupy.open_backend, lambda: backend.get_backend("gpu")):
        with pytest.raises(RuntimeError, match=rf"^backend: 'cupy' needs a CUDA GPU, (and )?{reason}; use 'numpy'$"):
            use()


def test_an_error_is_not_remembered(plant):
    plant(fake_cupy(lambda: 0))
    with pytest.raises(RuntimeError, match="found 0"):
        backend.get_backend("cupy")
    plant(fake_cupy(lambda: 1))
    assert backend.get_backend("cupy").name == "cupy"


# ---- where it can ------------------------------------------------------------------------------------------------


def test_the_names_of_a_gpu_and_its_arrays_lead_to_one_backend(plant):
    module = plant(fake_cupy(lambda: 1))
    opened = backend.get_backend("cupy")
    assert opened.xp is module and repr(opened) == "<backend cupy>"
    assert backend.get_backend("cuda") is backend.get_backend("gpu") is backend.backend_of(module.ndarray()) is opened


def test_an_array_of_cupy_opens_the_backend(plant):
    module = plant(fake_cupy(lambda: 1))
    assert backend.backend_of(module.ndarray()) is backend.get_backend("cupy")


def test_actions_run_once_at_the_first_use(plant):
    calls = []
    backend.on_first_use("cupy", lambda: calls.append("kernels"))
    plant(fake_cupy(lambda: 0))
    with pytest.raises(RuntimeError):
        backend.get_backend("cupy")
    assert not calls
    plant(fake_cupy(lambda: 1))
    assert not calls
    backend.get_backend("cupy")
    backend.get_backend("cupy")
    assert calls == ["kernels"]


def test_kernels_are_registered_at_the_first_use(plant, monkeypatch):
    from tensorlib import kernels

    registered = []
    monkeypatch.setattr(kernels, "_register_cuda_kernels", lambda: registered.append("cuda"))
    monkeypatch.setattr(kernels, "enabled", lambda: True)
    kernels.register_kernels()
    assert not registered
    plant(fake_cupy(lambda: 1))
    backend.get_backend("cupy")
    assert registered == ["cuda"]
