from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter.data.placement import Draws, draws_at, motion_number, place_frames, record_order
from dynamicrafter.errors import InputError

unit = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 400), st.integers(1, 20), st.integers(1, 4), st.integers(0, 5), unit, unit)
def test_frames_lie_in_the_clip_at_the_largest_stride_that_fits_or_less(available, num_frames, low, more, a, b):
    draws, strides = Draws(a, b, 0), (low, low + more)
    if available < (num_frames - 1) * low + 1:
        with pytest.raises(InputError, match=f"has {available} frames, and {num_frames} at stride {low} need"):
            place_frames(available, num_frames=num_frames, strides=strides, draws=draws)
        return
    slots = place_frames(available, num_frames=num_frames, strides=strides, draws=draws).slots(num_frames)
    assert len(slots) == num_frames
    assert 0 <= slots[0] <= slots[-1] < available
    asked = low + int(a * (more + 1))
    assert slots.step == asked or available < (num_frames - 1) * asked + 1
    if slots.step != asked:
        assert available < (num_frames - 1) * (slots.step + 1) + 1


def test_a_clip_that_just_fits_takes_all_of_it():
    place = place_frames(31, num_frames=16, strides=(1, 6), draws=Draws(0.99, 0.99, 0))
    assert (place.start, place.stride) == (0, 2)


def test_strides_and_starts_are_uniform():
    strides, starts = Counter(), Counter()
    for position in range(3000):
        place = place_frames(94, num_frames=16, strides=(1, 6), draws=draws_at(5, position))
        strides[place.stride] += 1
        if place.stride == 6:
            starts[place.start] += 1
    assert set(strides) == {1, 2, 3, 4, 5, 6}
    assert all(420 < count < 580 for count in strides.values())
    assert set(starts) == {0, 1, 2, 3}


def test_draws_follow_from_seed_and_position():
    assert draws_at(1, 2) == draws_at(1, 2)
    assert len({draws_at(seed, position) for seed in range(3) for position in range(3)}) == 9


def test_each_pass_holds_every_record_once_in_another_order():
    passes = []
    for epoch in range(3):
        order, places = zip(*(record_order(11, 7, epoch * 11 + place) for place in range(11)), strict=True)
        assert places == tuple(range(11))
        assert sorted(order[0]) == list(range(11))
        assert all(np.array_equal(order[0], other) for other in order)
        passes.append(tuple(order[0]))
    assert len(set(passes)) == 3
    assert tuple(record_order(11, 8, 0)[0]) != passes[0]


@pytest.mark.parametrize(
    ("fps", "stride", "number"),
    [(Fraction(30), 1, 30), (Fraction(30000, 1001), 1, 29), (Fraction(30), 4, 7), (Fraction(25), 6, 4), (5, 6, 0)],
)
def test_the_motion_number_drops_the_remainder_of_frames_per_second(fps, stride, number):
    assert motion_number(Fraction(fps), stride, "frames per second") == number
    assert motion_number(Fraction(fps), stride, "frame stride") == stride
