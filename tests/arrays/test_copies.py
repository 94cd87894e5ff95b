"""Copies of many arrays in one launch: every size and place, and what is next to a target stays as it is."""

import numpy as np
import pytest

from tests.conftest import backend_named

SIZES = [0, 1, 3, 16, 17, 4096, 4103, 100_001, 4_300_003]  # bytes; the last one takes a thread two rounds


@pytest.mark.parametrize(("source", "target"), [(0, 0), (32, 16), (4, 0), (0, 8), (3, 0), (5, 5), (0, 2)])
def test_bytes_are_copied_from_and_to_any_address(source, target):
    """Words of 16, of 4 and of 1 byte, by where both arrays begin."""
    xp = backend_named("cupy").xp
    from tensorlib.arrays.cuda import copy_arrays

    rng = np.random.default_rng(0)
    sizes = [*SIZES, *rng.integers(1, 300, 170)]  # more than one launch has room for
    given = [rng.integers(1, 256, size + 64, "uint8") for size in sizes]
    sources, targets = [xp.asarray(values) for values in given], [xp.zeros(size + 64, "uint8") for size in sizes]
    copy_arrays(
        [
            (there[target : target + size], here[source : source + size])
            for here, there, size in zip(sources, targets, sizes, strict=True)
        ]
    )
    for values, there, size in zip(given, targets, sizes, strict=True):
        expected = np.zeros(size + 64, "uint8")
        expected[target : target + size] = values[source : source + size]
        np.testing.assert_array_equal(xp.asnumpy(there), expected)
