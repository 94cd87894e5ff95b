"""What counts as a lack of memory, and that the command line says so in one line."""

import pytest

from models.cli import main
from models.system.memory import is_out_of_memory

PROGRAM = "CUDA_ERROR_INVALID_VALUE: invalid argument", "shapes differ"
MEMORY = (
    "cudaErrorMemoryAllocation: out of memory",
    "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


@pytest.mark.parametrize("text", MEMORY)
def test_the_texts_of_cuda_and_its_libraries_are_known(text):
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("text", PROGRAM)
def test_other_errors_are_not_taken_for_it(text):
    assert not is_out_of_memory(RuntimeError(text))


def test_what_our_own_calls_of_cublas_raise_is_known():
    cublas = pytest.importorskip("tensorlib.kernels.cuda.cublas", reason="cuBLAS is called with CuPy")
    with pytest.raises(RuntimeError) as error:
        cublas.check(3, "products: a handle")
    assert is_out_of_memory(error.value)


@pytest.mark.parametrize("text", MEMORY)
def test_a_command_ends_with_one_line(monkeypatch, capsys, text):
    def fail(*_, **__):
        raise RuntimeError(text)

    monkeypatch.setattr(main, "_app", lambda _: fail)
    assert main.main(["translate"]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "out of memory; use a smaller --batch-tokens" in printed.err
