"""The slots of a captured step: what Python computes before each replay, and repeats after it."""

import numpy as np
import pytest

import tensorlib as tl
from tensorlib.arrays.capturing import WORDS, Capture, capturing, current_capture, step_value


@pytest.fixture
def capture():
    return Capture(np.zeros(WORDS, np.uint64))


def test_outside_a_capture_a_number_is_passed_by_value():
    assert current_capture() is None
    assert step_value(lambda: 0.5) == (0, 0.5)


def test_a_number_is_computed_again_before_each_replay(capture):
    rates = iter([0.25, 0.125])
    with capturing(capture):
        slot, value = step_value(lambda: next(rates))
    assert value == 0.0 and slot.base is capture.slots
    assert [capture.words().view(np.float64)[0] for _ in range(2)] == [0.25, 0.125]


def test_draws_are_counted_from_the_position_of_their_generator(capture):
    first, second = tl.Generator(2**70 + 5), tl.Generator(9)
    first.state = (2**70 + 5, 7)
    with capturing(capture):
        draws = [generator.next_draw()[1] for generator in (first, second, first)]
    assert [(int(d), d.offset) for d in draws] == [(7, 0), (0, 0), (8, 1)]
    assert draws[0].slot is draws[2].slot and draws[0].slot is not draws[1].slot
    assert list(capture.words()) == [5, 2**6, 9, 9, 0, 1]
    capture.replayed()
    assert first.state == (2**70 + 5, 11) and second.state == (9, 2)


def test_draws_repeated_by_checkpoint_are_the_same_draws(capture):
    x, seen = tl.Tensor([1.0, 2.0], requires_grad=True), []
    generator = tl.Generator(1)

    def part(x):
        seen.append(generator.next_draw()[1])
        return x * 2

    with capturing(capture):
        tl.checkpoint(part, x).sum().backward()
    assert len(seen) == 2 and seen[0] is seen[1] and generator.state == (1, 1)


def test_side_effects_are_repeated(capture):
    count = []
    capture.at_each_replay(lambda: count.append(1))
    capture.replayed(), capture.replayed()
    assert len(count) == 2


def test_too_many_slots_are_refused(capture):
    with pytest.raises(RuntimeError, match=f"at most {WORDS} words .* got {WORDS + 1}"):
        for _ in range(WORDS + 1):
            capture.number(lambda: 0.0)
