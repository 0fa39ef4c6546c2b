"""Random streams depend on seed, item and sample, and on nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.randomness import MAX_SEED, draw, generator_for, stream_seed


@given(st.integers(0, MAX_SEED), st.text(), st.integers(0, 1000))
def test_stream_seeds_are_in_range_and_repeatable(seed, item, sample):
    made = stream_seed(seed, item=item, sample=sample)
    assert 0 <= made <= MAX_SEED
    assert made == stream_seed(seed, item=item, sample=sample)


def test_streams_differ_in_every_name():
    streams = {(seed, item, sample) for seed in (0, 1) for item in ("", "a", "b") for sample in (0, 1, 2)}
    assert len({stream_seed(s, item=i, sample=n) for s, i, n in streams}) == len(streams)


def test_the_first_sample_of_no_item_is_the_plain_seed():
    assert stream_seed(42) == 42
    assert stream_seed(MAX_SEED) == MAX_SEED == 2**64 - 1
    assert generator_for(MAX_SEED).initial_seed() % 2**64 == MAX_SEED


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seed": -1}, "seed must be between 0 and"),
    ({"seed": 2**64}, "seed must be between 0 and"),
    ({"seed": 1, "sample": -1}, "sample must not be negative"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        stream_seed(**arguments)


def test_each_sample_draws_from_its_own_generator():
    both = draw((2, 3, 4), [generator_for(1), generator_for(2)])
    assert torch.equal(both[:1], draw((1, 3, 4), [generator_for(1)]))
    assert torch.equal(both[1:], draw((1, 3, 4), generator_for(2)))
    with pytest.raises(InputError, match="generator must be one or as many as there are videos, 2, got 1"):
        draw((2, 3), [generator_for(1)])


def test_an_item_that_is_no_valid_text_is_a_name_like_any_other():
    assert stream_seed(1, item="\ud800") not in (stream_seed(1), stream_seed(1, item="\udfff"))
