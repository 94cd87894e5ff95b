"""tl.depends: what it proves is compared with what changes when elements are changed."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.engine.function import Function
from tensorlib.optable import ROWS
from tensorlib.ops.plain import Plain
from tensorlib.transforms.dependence_rules import FORMULAS, RULES
from tests.edges import refused

RNG = np.random.default_rng(0)


def leaf(*shape):
    return tl.Tensor(RNG.standard_normal(shape), requires_grad=True)


def changes(f, arrays, i, steps=(1e-3, -0.37, 2.9)):
    """Return which elements of f(*arrays) change when an element of input i does, (*shape of f, *shape of input)."""
    before = f(*arrays)
    found = np.zeros((*before.shape, *arrays[i].shape), bool)
    for place in np.ndindex(arrays[i].shape):
        for step in steps:
            changed = [a.copy() for a in arrays]
            changed[i][place] += step
            after = f(*changed)
            found[(..., *place)] |= (after != before) & ~(np.isnan(after) & np.isnan(before))
    return found


def outputs_of(y):
    return [x for x in (y if isinstance(y, tuple | list) else [y]) if isinstance(x, tl.Tensor) and x.requires_grad]


def recorded(y):
    """Return y and the outputs beside it as one Tensor, since `depends` looks at one result."""
    return tl.concatenate([x.reshape(-1) for x in outputs_of(y)])


# ---- every op of the table against what changes ----------------------------------------------------------------------

@pytest.mark.parametrize("row", [row for row in ROWS if row.differentiable], ids=lambda row: row.name)
def test_what_changes_is_among_what_can_depend(row):
    """The steps are tiny, so that indices such as those of a sort, which count as constants, stay the same."""
    for sample in row.samples:
        arrays = row.arrays(sample)
        f = row.bound(sample, tl.get_backend("numpy"))
        xs = [tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
        if sum(a.size for a in arrays) > 150 or not outputs_of(f(*xs)):
            continue

        def values(*given, f=f):
            tl.seed(0)  # the same dropout masks in every call
            return recorded(f(*[tl.Tensor(a, requires_grad=a.dtype.kind == "f") for a in given])).numpy()

        y = recorded(f(*xs))
        for i, x in enumerate(xs):
            if x.requires_grad:
                can = tl.depends(y, on=x)
                assert not can.without_rule, f"{row.name}({sample}): {can.without_rule}"
                with np.errstate(all="ignore"):
                    does = changes(values, arrays, i, steps=(1e-7,))
                assert not (does & ~can.array).any(), f"{row.name}({sample}), input {i}"


def test_every_op_that_can_be_recorded_has_a_rule():
    ops = {cls for cls in Function.__subclasses__() if cls.__module__.startswith("tensorlib.ops")}
    ops |= {sub for cls in ops for sub in cls.__subclasses__()}
    assert ops - {Plain} == {*RULES, *FORMULAS}
