"""Words for time."""

import pytest

from dynamicrafter.faces.times import time_in_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (0.26, "0.3 s"),
        (8, "8 s"),
        (8.44, "8.4 s"),
        (9.96, "10 s"),
        (41.7, "42 s"),
        (59.6, "1 min 0 s"),
        (187, "3 min 7 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_a_span_of_time_is_said_as_one_says_it(seconds, words):
    assert time_in_words(seconds) == words
