"""The recording state: grad mode, in one thread and in several."""

import threading

import numpy as np
import pytest

import tensorlib as tl
from tests.engine.helpers import leaf


def test_no_grad_as_context_and_decorator():
    x = leaf(1.0)

    @tl.no_grad()
    def double(value):
        """Twice."""
        assert not tl.is_grad_enabled()
        return value * 2

    with tl.no_grad():
        assert not tl.is_grad_enabled() and not (x * 2).requires_grad
        with tl.no_grad():
            pass
        assert not tl.is_grad_enabled()
    assert tl.is_grad_enabled()
    for _ in range(2):  # a decorated function may be called again
        assert not double(x).requires_grad
    assert double.__name__ == "double" and double.__doc__ == "Twice."
    assert (x * 2).requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyboardInterrupt), tl.no_grad():
        raise KeyboardInterrupt
    assert tl.is_grad_enabled()


def test_no_grad_holds_for_its_thread_only():
    seen = []
    with tl.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tl.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_threads_on_separate_graphs():
    results, start = {}, threading.Barrier(4)

    def work(number):
        start.wait()
        x = leaf(np.full(50, number + 1.0))
        for step in range(50):
            if step % 2:
                with tl.no_grad():
                    assert not (x * x).requires_grad
            y = x
            for _ in range(20):
                y = y * 1.0 + x
            y.sum().backward()
        results[number] = x.grad.numpy()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 1, 2, 3]
    for dx in results.values():
        np.testing.assert_array_equal(dx, 50 * 21)


def test_threads_that_use_every_feature():
    """Hooks, checkpoints, debug, second derivatives and separate generators, in four threads at once."""

    def work(number):
        found, own = [], tl.Generator(number)
        for _ in range(10):
            x, seen = leaf(np.full(20, 1.0 + number)), []
            x.register_hook(seen.append)
            with tl.debug(), tl.module_scope(f"thread{number}"):
                y = tl.checkpoint(lambda x: tl.dropout(tl.exp(x / 4), 0.5, own) * x, x)
                assert y.node.path == f"thread{number}"
                (dx,) = tl.grad(y.sum(), [x], create_graph=True)
                (dx * dx).sum().backward()
            found.append((dx.numpy().tobytes(), x.grad.numpy().tobytes(), len(seen)))
        return found

    alone, together, start = [work(n) for n in range(4)], {}, threading.Barrier(4)

    def run(number):
        start.wait()
        together[number] = work(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[n] for n in range(4)] == alone
