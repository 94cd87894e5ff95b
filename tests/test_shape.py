"""Moving elements: edge cases, and mistakes."""

import pytest
from edges import matrix

import tensorlib as tl

# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x.transpose(0, 2), ValueError, r"transpose: axis must lie in \[-2, 2\) for 2 dimensions, got 2"),
    (lambda x: x.transpose(0), ValueError, r"transpose: axes must be a permutation of 2 axes, got \(0,\)"),
    (lambda x: x.swapaxes(0, 5), ValueError, "swapaxes: axis must lie .* got 5"),
    (lambda x: x.reshape(4, 2), ValueError, r"reshape: .*\(operands of shape \(2, 3\)\)"),
    (lambda x: x.squeeze(0), ValueError, r"squeeze: axis 0 must have size 1, got shape \(2, 3\)"),
    (lambda x: tl.split(x, 2, axis=1), ValueError, "split: 2 equal parts must fit axis 1 of size 3"),
    (lambda x: tl.split(x, [2, 1], axis=1), ValueError, r"split: positions must rise from 0 to 3, .* got \[2, 1\]"),
    (lambda x: tl.concatenate([]), ValueError, "concatenate: needs at least one Tensor, got none"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
