import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.media.notes import MAX_NOTE, Note, parse_fps, parse_note, write_note

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    metadata=st.dictionaries(st.text(), JSON, max_size=4),
    fps=st.fractions(Fraction(1, 10), 240, max_denominator=1001),
    num_frames=st.integers(1, 500),
)
def test_a_note_comes_back_as_it_was_and_is_plain_ascii(metadata, fps, num_frames):
    text = write_note(metadata, fps=fps, num_frames=num_frames)
    assert text.isascii()
    assert "\n" not in text
    assert parse_note(text) == parse_note(text.encode()) == Note(metadata, fps, num_frames)


@given(st.one_of(st.text(), st.binary(), st.none(), st.integers(), JSON.map(json.dumps)))
def test_any_other_text_is_no_note_and_no_error(text):
    assert parse_note(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"dynamicrafter": {}, "fps": "8", "frames": 1, "pad": "' + "x" * MAX_NOTE + '"}',
        '{"dynamicrafter": [], "fps": "8", "frames": 1}',
        '{"dynamicrafter": {}, "fps": "1e999", "frames": 1}',
        '{"dynamicrafter": {}, "fps": "0", "frames": 1}',
        '{"dynamicrafter": {}, "fps": [], "frames": 1}',
        '{"dynamicrafter": {}, "fps": "8", "frames": 0}',
        '{"dynamicrafter": {}, "fps": "8", "frames": true}',
        '{"dynamicrafter": {}, "fps": "8"}',
        '{"seed": ' + "9" * 50_000 + "}",
    ],
)
def test_hostile_or_incomplete_text_is_no_note(text):
    assert parse_note(text) is None


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ("seed 7", "metadata must be a dict, got str"),
        ({"path": object()}, "metadata must hold plain JSON values, but Object of type object is not JSON"),
        ({"scale": float("nan")}, "metadata must hold plain JSON values, but Out of range float values"),
        ({"prompt": "x" * MAX_NOTE}, "metadata must fit into 65536 characters of JSON, got 65"),
    ],
)
def test_metadata_that_json_cannot_hold_is_refused(metadata, line):
    with pytest.raises(InputError, match=line):
        write_note(metadata, fps=Fraction(8), num_frames=1)


@pytest.mark.parametrize(
    ("fps", "exact"),
    [
        (8, Fraction(8)),
        (8.0, Fraction(8)),
        (23.976, Fraction(2997, 125)),
        (24000 / 1001, Fraction(24000, 1001)),
        ("23.976", Fraction(2997, 125)),
        ("24000/1001", Fraction(24000, 1001)),
        (np.float64(0.1), Fraction(1, 10)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
    ],
)
def test_frames_per_second_become_the_fraction_that_was_meant(fps, exact):
    assert parse_fps(fps) == exact


@pytest.mark.parametrize(
    ("fps", "line"),
    [
        (0, "fps must be between 0.1 and 240 frames per second, got 0"),
        (-8, "fps must be between 0.1 and 240 frames per second, got -8"),
        (1000, "fps must be between 0.1 and 240 frames per second, got 1000"),
        (True, "fps must be between 0.1 and 240 frames per second, got True"),
        (float("nan"), "fps must be a number or a fraction such as 24000/1001, got 'nan'"),
        (float("inf"), "fps must be a number or a fraction such as 24000/1001, got 'inf'"),
        ("8/0", "fps must be a number or a fraction such as 24000/1001, got '8/0'"),
        ("fast", "fps must be a number or a fraction such as 24000/1001, got 'fast'"),
        (None, "fps must be a number or a fraction such as 24000/1001, got 'None'"),
        ("1e-999999999999999999999999999999999", "fps must be a number or a fraction"),
        (Fraction(80000001, 10000000), "fps must be a fraction of at most seven digits, got 80000001/10000000"),
    ],
)
def test_other_rates_are_refused(fps, line):
    with pytest.raises(InputError, match=line):
        parse_fps(fps)
