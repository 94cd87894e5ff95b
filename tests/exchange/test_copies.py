"""Tensors through copy and pickle."""

import copy
import pickle
import time

import numpy as np
import pytest

import nn
import tensorlib as tl
from tensorlib.exchange import interop


def leaf(backend="numpy"):
    x = tl.Tensor([[1.0, -2.0, 3.0]], requires_grad=True, backend=backend)
    x.name, x.grad = "w", tl.Tensor([[4.0, 5.0, 6.0]], backend=backend)
    return x


def through_pickle(x):
    return pickle.loads(pickle.dumps(x))


class Annotated(nn.Parameter):
    """A subclass with an attribute and a constructor that takes other arguments."""

    def __init__(self, data, note):
        super().__init__(data)
        self.note = note


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_a_copy_of_a_leaf_has_all_its_properties(duplicate, backend):
    x = leaf(backend)
    y = duplicate(x)
    assert (y.requires_grad, y.name, y.is_leaf, y.version, y.dtype) == (True, "w", True, 0, np.float32)
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    np.testing.assert_array_equal(y.grad.numpy(), x.grad.numpy())
    if duplicate is copy.deepcopy or backend.name != "strict":  # get_backend does not know the stand-in's name
        assert y.backend is backend and y.grad.backend is backend
    assert y.data is not x.data and y.grad.data is not x.grad.data
    (y * y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[4, 5, 6]])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_copies_keep_the_class_and_its_attributes(duplicate):
    assert type(duplicate(nn.Parameter([1.0]))) is nn.Parameter
    y = duplicate(Annotated([1.0, 2.0], ["n"]))
    assert type(y) is Annotated and y.note == ["n"] and y.requires_grad


def test_a_shallow_copy_shares_array_and_history(backend):
    x = leaf(backend)
    twin = copy.copy(x)
    assert twin is not x and twin.data is x.data and twin.grad is x.grad and twin.name == "w"
    y = x * 2
    z = copy.copy(y)
    assert z.array is y.array and not z.is_leaf
    (z + y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[8, 9, 10]])
    assert twin.grad.numpy()[0, 0] == 4


@pytest.mark.parametrize(
    ("duplicate", "name"), [(copy.deepcopy, "deepcopy"), (pickle.dumps, "pickle")], ids=["deepcopy", "pickle"]
)
def test_a_graph_is_neither_copied_nor_traversed(duplicate, name):
    x = y = leaf()
    for _ in range(100_000):
        y = y + 1.0
    start = time.perf_counter()
    with pytest.raises(RuntimeError, match=rf"{name}: needs a leaf.*shape \(1, 3\) was computed by add; use x\.detach"):
        duplicate(y)
    duplicate(y.detach())
    duplicate({"start": x, "end": y.detach()})
    assert time.perf_counter() - start < 1


def test_the_history_of_a_gradient_is_not_copied():
    x = leaf()
    x.grad = x * 2
    assert copy.deepcopy(x).grad.is_leaf and through_pickle(x).grad.is_leaf


def test_pickled_weights_of_a_gpu_load_on_the_host_if_no_gpu_answers(monkeypatch):
    def no_gpu(name):
        raise RuntimeError("backend: 'cupy' needs a CUDA GPU, found 0; use 'numpy'")

    make, parts = leaf().__reduce__()
    monkeypatch.setattr(interop, "get_backend", no_gpu)
    y = make(parts[0], parts[1], "cupy", *parts[3:])
    assert y.backend.name == "numpy" and y.requires_grad
    np.testing.assert_array_equal(y.numpy(), [[1, -2, 3]])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_hooks_on_the_gradient_are_not_copied(duplicate):
    x, calls = leaf(), []
    x.register_hook(calls.append)
    duplicate(x).sum().backward()
    assert not calls


def test_a_copy_of_an_array_that_is_not_contiguous_is_equal():
    x = tl.from_numpy(np.arange(6.0).reshape(2, 3).T[::-1])
    for y in (copy.deepcopy(x), through_pickle(x)):
        np.testing.assert_array_equal(y.numpy(), x.numpy())
        assert not np.shares_memory(y.data, x.data) and y.data.flags.writeable
