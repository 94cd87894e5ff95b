"""Tensors with NumPy's arrays and through DLPack."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.exchange import interop


class Foreign:
    """An array of another library, which supports DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


# ---- operands of NumPy -------------------------------------------------------------------------------------------


def test_an_array_on_the_left_of_an_operator(backend):
    a, b = np.array([[4.0, 9.0], [1.0, 2.0]]), np.array([[2.0, 3.0], [1.0, 5.0]])
    x = tl.Tensor(b, requires_grad=True, backend=backend)
    left = tl.Tensor(a, backend=backend).data
    for found, expected in (
        (left + x, a + b), (left - x, a - b), (left * x, a * b), (left / x, a / b), (left**x, a**b),
        (left @ x, a @ b), (left == x, a == b), (left != x, a != b), (left < x, a < b), (left <= x, a <= b),
        (left > x, a > b), (left >= x, a >= b), ((left > 3) & (x > 3), (a > 3) & (b > 3)),
        ((left > 3) | (x > 3), (a > 3) | (b > 3)),
    ):  # fmt: skip
        assert isinstance(found, tl.Tensor) and found.backend is backend and found.dtype == expected.dtype
        np.testing.assert_array_equal(found.numpy(), expected)
    (left * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), a)


def test_a_numpy_scalar_on_the_left_is_a_number(backend):
    x = tl.Tensor([1.0, 2.0], backend=backend)
    for scalar in (np.float64(2), np.float32(2), np.int64(2)):
        for found, expected in (
            (scalar + x, [3, 4]), (scalar - x, [1, 0]), (scalar * x, [2, 4]), (scalar / x, [2, 1]),
            (scalar**x, [2, 4]), (scalar < x, [False, False]), (scalar == x, [False, True]),
        ):  # fmt: skip
            assert isinstance(found, tl.Tensor) and found.dtype in (np.float32, bool)
            np.testing.assert_array_equal(found.numpy(), expected)


def test_an_array_of_another_backend_is_refused():
    from tests.strict import STRICT

    with pytest.raises(TypeError, match="multiply: operands must be on one backend, got numpy and strict"):
        np.ones(2) * tl.Tensor([1.0, 2.0], backend=STRICT)


def test_a_tensor_is_added_into_an_array_in_place_unless_that_loses_a_gradient():
    array = alias = np.array([1.0, 2.0])
    array += tl.Tensor([3.0, 4.0])
    assert array is alias
    np.testing.assert_array_equal(array, [4, 6])
    w = tl.Tensor([3.0, 4.0], requires_grad=True)
    for x in (w, w * 2):
        with pytest.raises(TypeError, match=r"np\.add: the Tensor of shape \(2,\) requires a gradient.*x\.detach\(\)"):
            array += x
    with pytest.raises(TypeError, match=r"np\.add: out must be an array, because Tensors are values"):
        np.add(array, 1, out=tl.Tensor([3.0, 4.0]))
    np.testing.assert_array_equal(array, [4, 6])
    with tl.no_grad():
        array -= w
    np.testing.assert_array_equal(array, [1, 2])


def test_in_place_operators_rebind_the_name(backend):
    x = tl.Tensor([2.0, 4.0], requires_grad=True, backend=backend)
    y = x + 0
    y += 1
    y *= 3
    y -= 1
    y /= 2
    y **= 2
    assert y is not x and not y.is_leaf
    np.testing.assert_array_equal(x.numpy(), [2, 4])
    np.testing.assert_array_equal(y.numpy(), [16, 49])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [12, 21])  # d/dx ((3(x+1) - 1)/2)^2 = 3 (3x+2)/2


def test_numpy_shares_memory_until_the_tensor_is_replaced():
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    view = x.numpy()
    assert np.shares_memory(view, x.data)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 9
    x.replace(np.array([5.0, 6.0], np.float32))
    np.testing.assert_array_equal(view, [1, 2])
    assert not np.shares_memory(x.numpy().copy(), x.data) and x.numpy().copy().flags.writeable


def test_numpy_is_read_only_on_every_backend(backend):
    assert not tl.Tensor([1.0, 2.0], backend=backend).numpy().flags.writeable


def test_asarray_shares_memory_unless_it_has_to_convert():
    x = tl.Tensor([1.0, 2.0])
    assert np.shares_memory(np.asarray(x), x.data) and not np.shares_memory(np.array(x), x.data)
    assert not np.asarray(x).flags.writeable and np.array(x).flags.writeable
    assert np.asarray(x, dtype="float64").flags.writeable
    assert np.asarray(x, dtype="float64").dtype == np.float64
    with pytest.raises(ValueError):
        np.asarray(x, dtype="float64", copy=False)
    np.testing.assert_array_equal(np.concatenate([x, x]), [1, 2, 1, 2])


def test_joining_tensors_with_numpy_names_the_functions_that_keep_the_gradient():
    x = tl.Tensor([1.0, 2.0], requires_grad=True)
    for join in (lambda: np.array([x, x]), lambda: tl.Tensor([x, x]), lambda: np.array([x[0], x[1]])):
        with pytest.raises(TypeError, match=r"requires a gradient.*use x\.detach\(\)\.numpy\(\), or tl\.stack"):
            join()


# ---- from_numpy --------------------------------------------------------------------------------------------------


def test_from_numpy_shares_any_layout_and_keeps_a_file_mapped(tmp_path):
    array = np.arange(12.0).reshape(3, 4)
    for view in (array.T, array[::2, ::-1], array[:0], array[0, 0, ...], array.view()):
        x = tl.from_numpy(view)
        assert x.shape == view.shape and (np.shares_memory(x.data, array) or not x.size)
        np.testing.assert_array_equal(x.numpy(), view)
    mapped = np.memmap(tmp_path / "f", np.float32, "w+", shape=(2,))
    assert type(tl.from_numpy(mapped).data) is np.ndarray and np.shares_memory(tl.from_numpy(mapped).data, mapped)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], r"from_numpy: needs a numpy\.ndarray, got list; use tl\.Tensor\(x\), which copies"),
        (3.0, r"needs a numpy\.ndarray, got float; use tl\.Tensor\(x\)"),
        (np.float32(3), r"needs a numpy\.ndarray, got numpy\.float32"),
        (tl.Tensor([1.0]), r"got Tensor; use tl\.from_dlpack\(x\)"),
        (Foreign(np.ones(1)), r"got tests\.Foreign; use tl\.from_dlpack\(x\)"),
        (np.array(["a"]), "from_numpy: data must be numbers, got dtype <U1"),
        (np.array([None]), "from_numpy: data must be numbers, got dtype object"),
        (np.array([1 + 2j]), "from_numpy: complex numbers are not supported, got dtype complex128; keep the real and"),
        (np.array([1.0], ">f4"), r"from_numpy: the byte order .* got dtype >f4; use tl\.Tensor\(x\), which copies"),
        (np.ma.masked_array([1.0], [True]), r"a Tensor has no mask, got a MaskedArray; use x\.filled\(0\)"),
    ],
)
def test_from_numpy_refuses_anything_except_an_array_of_numbers(given, message):
    with pytest.raises(TypeError, match=message):
        tl.from_numpy(given)


# ---- DLPack ------------------------------------------------------------------------------------------------------

ARRAYS = {
    "plain": np.arange(6.0).reshape(2, 3),
    "transposed": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
    "strided": np.arange(12, dtype=np.int64)[::3],
    "reversed": np.arange(4, dtype=np.int32)[::-1],
    "0-d": np.array(2.5),
    "empty": np.zeros((0, 3), np.float16),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_dlpack_shares_memory_both_ways(name):
    array = ARRAYS[name].copy(order="K")[...] if name == "0-d" else ARRAYS[name]
    out = np.from_dlpack(tl.from_numpy(array))
    back = tl.from_dlpack(Foreign(array))
    assert isinstance(back, tl.Tensor) and not back.requires_grad and back.is_leaf
    for x in (out, back.data, tl.from_dlpack(array).data, tl.from_dlpack(tl.from_numpy(array)).data):
        assert x.dtype == array.dtype and x.shape == array.shape
        np.testing.assert_array_equal(x, array)
        assert np.shares_memory(x, array) or not array.size


def test_changes_show_through_dlpack_but_not_in_a_copy():
    array = np.array([1.0, 2.0])
    shared, copied = tl.from_dlpack(Foreign(array)), tl.Tensor(tl.from_dlpack(Foreign(array)))
    array[0] = 9
    assert shared[0].item() == 9 and copied[0].item() == 1


def test_read_only_arrays_stay_read_only():
    array = np.arange(3.0)
    array.flags.writeable = False
    for x in (tl.from_dlpack(array), tl.from_dlpack(Foreign(array)), tl.from_numpy(array)):
        assert np.shares_memory(x.data, array) and not x.data.flags.writeable
        np.testing.assert_array_equal((x * 2).numpy(), [0, 2, 4])


def test_the_dlpack_device_of_a_tensor(backend):
    x = tl.Tensor([1.0], backend=backend)
    if backend.name == "numpy":
        assert x.__dlpack_device__() == (1, 0)
    elif backend.name == "cupy":
        assert x.__dlpack_device__()[0] == 2
        assert tl.from_dlpack(x.data).backend is backend and tl.from_dlpack(Foreign(x.data, (2, 0))).item() == 1


def test_only_tensors_on_a_gpu_have_the_cuda_array_interface(backend):
    x = tl.Tensor([1.0], backend=backend)
    assert hasattr(x, "__cuda_array_interface__") == (backend.name == "cupy")
    if backend.name == "cupy":
        assert x.__cuda_array_interface__ == x.data.__cuda_array_interface__


def test_the_cuda_array_interface_is_refused_for_tensors_that_require_a_gradient():
    class Device:  # in place of CuPy's array
        __cuda_array_interface__ = {"shape": (1,), "version": 3}  # noqa: RUF012

    x = tl.Tensor([1.0])
    x.array = Device()
    assert interop.cuda_array_interface(x) == {"shape": (1,), "version": 3}
    x.needs_grad = True
    with pytest.raises(BufferError, match=r"cuda_array_interface: this Tensor requires a gradient.*use x\.detach\(\)"):
        interop.cuda_array_interface(x)


def test_a_tensor_that_requires_a_gradient_is_not_exported():
    x = tl.Tensor([1.0], requires_grad=True)
    for y in (x, x * 2):
        with pytest.raises(BufferError, match=r"dlpack: this Tensor requires a gradient.*; use x\.detach\(\)"):
            np.from_dlpack(y)
        with pytest.raises(BufferError, match=r"from_dlpack: this Tensor requires a gradient"):
            tl.from_dlpack(y)
    np.testing.assert_array_equal(np.from_dlpack(x.detach()), [1])


class Refusing(Foreign):
    def __dlpack__(self, **options):
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()\nmore of it")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1.0], TypeError, r"from_dlpack: needs an array that has __dlpack__, got list; use tl\.Tensor\(x\)"),
        (2.0, TypeError, "got float; use"),
        (None, TypeError, "got NoneType"),
        (np.ndarray, TypeError, r"got the class numpy\.ndarray"),
        (Foreign(np.ones(1), (8, 0)), BufferError, "host or on a CUDA GPU, got DLPack device type 8; move it"),
        (Refusing(np.ones(1)), BufferError, r"Refusing cannot be shared: Can't export.*, use tensor\.detach\(\)$"),
        (np.array(["a"]), TypeError, "data must be numbers, got dtype <U1"),
    ],
)
def test_from_dlpack_refuses_memory_that_it_cannot_share(given, error, message):
    with pytest.raises(error, match=message):
        tl.from_dlpack(given)


@pytest.mark.peers
@pytest.mark.parametrize("name", [name for name in ARRAYS if name != "reversed"])  # PyTorch has no negative strides
def test_dlpack_with_pytorch_shares_memory_both_ways(name):
    torch = pytest.importorskip("torch")
    ours = tl.from_numpy(ARRAYS[name].copy(order="K"))
    theirs = torch.from_dlpack(ours)
    back = tl.from_dlpack(theirs)
    np.testing.assert_array_equal(theirs.numpy(), ours.numpy())
    assert np.shares_memory(back.data, ours.data) or not ours.size
    with pytest.raises(BufferError, match=r"torch\.Tensor cannot be shared: .*gradient"):
        tl.from_dlpack(torch.ones(2, requires_grad=True))
