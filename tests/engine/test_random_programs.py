"""Random programs of 3 to 15 ops agree with PyTorch: values, all gradients, and for half also gradients of gradients.

Needs the extra `peers`; skipped if PyTorch is not installed. A program starts from a few leaves, and each instruction
takes values computed before: some are used many times, some never, several are outputs, parts run under no_grad.
Hypothesis draws the programs with fixed seeds, so a failure recurs on every run and is shown with the shortest program
that has it. More `STREAMS` try more programs. The ops that they consist of are in `torch_ops.py`.
"""

import random
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import tensorlib as tl
from tensorlib.optable import ROWS

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'tensorlib[peers]'")
from tests.torch_ops import DOMAINS, LARGEST, OPS, anything, broadcasting  # noqa: E402  # needs PyTorch itself

torch.set_num_threads(1)
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss"),  # PyTorch's warning about kl_div
]

# At its first backward pass and first step PyTorch imports more modules, which adds a warning filter and sets an
# environment variable. Trigger that here, because inside a test conftest would report a leak.
_weight = torch.nn.Parameter(torch.ones(2))
torch.autograd.grad([_weight * _weight], [_weight], [_weight.detach()])
_weight.grad = torch.ones(2)
torch.optim.SGD([_weight]).step()

STREAMS, PROGRAMS = 16, 200
SHAPES = [(), (1,), (3,), (4,), (2, 3), (3, 3), (1, 3), (2, 1), (3, 4), (2, 3, 3), (2, 3, 4), (1, 2, 3), (2, 1, 3, 2)]
RELATIVE = 1e-9


class Program:
    """A program while it runs in both libraries: its values and its text."""

    def __init__(self, shapes, numbers):
        self.numbers = np.random.default_rng(numbers)
        arrays = [self.numbers.uniform(-1.5, 1.5, shape) for shape in shapes]
        self.ours = [tl.Tensor(a, requires_grad=True) for a in arrays]
        self.theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
        self.leaves = len(shapes)
        self.text = [f"v{i} = leaf{shape}" for i, shape in enumerate(shapes)]

    def run(self, op, positions, choice):
        """Run one op on values computed before, if some have fitting shapes and the op is smooth there."""
        shapes = [tuple(t.shape) for t in self.theirs]

        def options_for(*chosen):
            given = [shapes[i] for i in chosen]
            if any(0 in shape for shape in given) and op.options not in (anything, broadcasting):
                return None  # no element to pick or to reduce
            return op.options(random.Random(choice), *given)

        chosen = [positions[0] % len(shapes)]
        if op.inputs == 2:
            fits = [i for i in range(len(shapes)) if options_for(*chosen, i) is not None]
            if not fits:
                return False
            chosen.append(fits[positions[1] % len(fits)])
        options = options_for(*chosen)
        return options is not None and self.call(op, chosen, options, recorded=choice % 16 < 15)

    def call(self, op, chosen, options, recorded=True):
        domain = DOMAINS[op.domain]
        with torch.set_grad_enabled(recorded):
            ts = [domain(self.theirs[i]) for i in chosen]
            theirs = op.theirs(*ts, **options)
            theirs = list(theirs) if isinstance(theirs, tuple | list) else [theirs]
            with torch.no_grad():
                if sum(t.numel() for t in theirs) > 2 * LARGEST or not op.smooth(ts, theirs[0]):
                    return False
        results = ", ".join(f"v{len(self.theirs) + k}" for k in range(len(theirs)))
        given = ", ".join([f"v{i}" for i in chosen] + [f"{k}={v!r}" for k, v in options.items()])
        kind = "" if op.domain == "real" else f", {op.domain} inputs"
        self.text.append(f"{results} = {op.name}({given}){kind}{'' if recorded else ', under no_grad'}")
        with nullcontext() if recorded else tl.no_grad():
            ours = op.ours(*[domain(self.ours[i]) for i in chosen], **options)
            ours = list(ours) if isinstance(ours, tuple | list) else [ours]
        assert len(ours) == len(theirs), self.report(f"{op.name} returns {len(ours)} values, PyTorch {len(theirs)}")
        for y, t in zip(ours, theirs, strict=True):
            self.compare([y], [t], f"the value of {op.name}")
            size = float(t.detach().abs().max()) if t.numel() else 1.0
            scale = 3 / size if size > 3 else 1 / size if 1e-3 < size < 0.3 else 1  # neither overflow nor vanish
            with torch.set_grad_enabled(recorded):
                self.theirs.append(t * scale)
            with nullcontext() if recorded else tl.no_grad():
                self.ours.append(y * scale)
        return True

    def finish(self, outputs, second):
        """Compare the gradients of some outputs, the last value among them, with respect to all leaves."""
        chosen = sorted({len(self.theirs) - 1, *[i % len(self.theirs) for i in outputs]})
        for i in chosen:
            assert self.ours[i].requires_grad == self.theirs[i].requires_grad, self.report(f"requires_grad of v{i}")
        ys = [self.ours[i] for i in chosen if self.ours[i].requires_grad]
        ts = [self.theirs[i] for i in chosen if self.theirs[i].requires_grad]
        if not ys:
            return
        self.text.append(f"outputs {', '.join(f'v{i}' for i in chosen)}")
        arrays = [self.numbers.uniform(-1, 1, y.shape) for y in ys]
        dxs, dts = self.gradients(ys, ts, arrays, second)
        self.compare(dxs, dts, "the gradient")
        if not second:
            return
        again = [(dx, dt) for dx, dt in zip(dxs, dts, strict=True) if dx is not None and dt is not None]
        arrays = [self.numbers.uniform(-1, 1, dx.shape) for dx, _ in again]
        self.text.append("gradients of these gradients")
        dys, dus = self.gradients([dx for dx, _ in again], [dt for _, dt in again], arrays, False)
        self.compare(dys, dus, "the gradient of the gradient")

    def gradients(self, ys, ts, arrays, create_graph):
        """Return the gradients for all leaves, None where no path leads to one."""
        ours = [(y, tl.Tensor(a)) for y, a in zip(ys, arrays, strict=True) if y.requires_grad]
        theirs = [(t, torch.tensor(a)) for t, a in zip(ts, arrays, strict=True) if t.requires_grad]
        xs, us, options = self.ours[: self.leaves], self.theirs[: self.leaves], {"allow_unused": True}
        nothing = [None] * self.leaves
        dxs = tl.grad(*unzip(ours, xs), create_graph=create_graph, **options) if ours else nothing
        dts = torch.autograd.grad(*unzip(theirs, us), create_graph=create_graph, **options) if theirs else nothing
        return dxs, dts

    def compare(self, ours, theirs, what):
        for y, t in zip(ours, theirs, strict=True):
            y = None if y is None else y.numpy()
            t = None if t is None else t.detach().numpy(force=True)
            y = np.zeros_like(t) if y is None and t is not None else y
            t = np.zeros_like(y) if t is None and y is not None else t
            if y is None:
                continue
            assert y.shape == t.shape, self.report(f"{what} has shape {y.shape}, PyTorch's {t.shape}")
            error = np.abs(y - t).max(initial=0) / max(np.abs(t).max(initial=0), 1e-3)
            assert error < RELATIVE, self.report(f"{what} differs by {error:.1e} of the largest element:\n{y}\n{t}")

    def report(self, what):
        """Return a message with the text of the program."""
        return "\n".join([what, *self.text])


def unzip(pairs, xs):
    """Return outputs, inputs and cotangents in the order in which both libraries take them."""
    return [y for y, _ in pairs], xs, [c for _, c in pairs]


# ---- the tests -------------------------------------------------------------------------------------------------------

INSTRUCTION = st.tuples(
    st.integers(0, len(OPS) - 1), st.tuples(st.integers(0, 17), st.integers(0, 17)), st.integers(0, 2**16)
)


@pytest.mark.parametrize("stream", range(STREAMS))
def test_random_programs_agree(stream):
    @seed(stream)
    @settings(max_examples=PROGRAMS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.sampled_from(SHAPES), min_size=2, max_size=4),
        st.lists(INSTRUCTION, min_size=3, max_size=15),
        st.lists(st.integers(0, 17), max_size=2),
        st.booleans(),
        st.integers(0, 2**16),
    )
    def agree(shapes, instructions, outputs, second, numbers):
        program = Program(shapes, numbers)
        for op, positions, choice in instructions:
            program.run(OPS[op], positions, choice)
        program.finish(outputs, second)

    agree()


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OPS])
def test_every_op_of_the_programs_agrees_alone(op):
    """Several times, so that no row of the table goes untested."""
    runs = 0
    for number in range(60):
        r = random.Random(number)
        shape = r.choice(SHAPES)
        program = Program([shape, r.choice([shape, shape[-1:], shape[::-1], r.choice(SHAPES)])], number)
        if program.run(op, (0, 1), 16 * number):
            program.finish([], second=number % 2 == 0)
            runs += 1
    assert runs >= 5, f"{op.name} ran {runs} times"


def test_every_differentiable_op_of_the_table_takes_part():
    left_out = {"dropout", "add_dropout", "permutation", "astype"}  # random numbers differ; here all is float64
    differentiable = {row.name for row in ROWS if row.differentiable}
    assert differentiable - left_out == {op.name.partition(" ")[0] for op in OPS} - {"detach"}


def test_a_wrong_gradient_is_noticed(monkeypatch):
    """The comparison itself is tested: a part in a million is too much."""
    from tensorlib.ops.arithmetic import Subtract

    monkeypatch.setattr(Subtract, "backward", lambda node, dz: (dz, -dz * (1 + 1e-6)))
    with pytest.raises(AssertionError, match="the gradient differs by"):
        test_every_op_of_the_programs_agrees_alone(next(op for op in OPS if op.name == "subtract"))
