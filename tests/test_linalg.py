"""Products of matrices: edge cases, and mistakes."""

import pytest
from edges import matrix

# ---- mistakes ----------------------------------------------------------------------------------------------------

BAD = [
    (lambda x: x @ x, ValueError, r"matmul: inner sizes must agree, got \(2, 3\) and \(2, 3\); did you mean"),
    (lambda x: x @ x[0, 0], ValueError, "matmul: both operands must have at least one dimension"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), BAD, ids=[b[2].partition(":")[0] for b in BAD])
def test_mistakes_are_named_with_the_value_and_the_remedy(mistake, error, message, backend):
    with pytest.raises(error, match=message):
        mistake(matrix(backend))
