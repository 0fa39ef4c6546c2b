"""Controls derive from the options' dataclass, and give the same options back."""

from dataclasses import fields
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter import AnimateOptions
from dynamicrafter.errors import InputError
from dynamicrafter.presets import BUNDLED, PRESETS
from dynamicrafter.randomness import MAX_SEED
from dynamicrafter.specs.options import Quality
from dynamicrafter.ui import controls as module
from dynamicrafter.ui.controls import FREQUENT, controls, look, options_from, shown

EVERY_PRESET = [*PRESETS.values(), BUNDLED]


def by_name(name):
    return next(control for control in controls() if control.name == name)


def test_every_option_has_a_control_with_its_docstring_and_the_frequent_ones_come_first():
    assert {control.name for control in controls()} == {option.name for option in fields(AnimateOptions)}
    assert all(len(control.help) > 10 for control in controls())
    assert tuple(control.name for control in controls())[: len(FREQUENT)] == FREQUENT


def test_a_field_that_is_added_later_gets_a_control_by_its_type():
    hints = {"window": int | None, "sampler": Literal["ddim", "dpm"], "pinned": bool}
    kinds = {name: module._control(name, hint, "2 to 16 of them.") for name, hint in hints.items()}
    assert (kinds["window"].kind, kinds["window"].low, kinds["window"].high) == ("whole", 2, 16)
    assert kinds["window"].optional
    assert (kinds["sampler"].kind, kinds["sampler"].choices) == ("choice", ("ddim", "dpm"))
    assert kinds["pinned"].kind == "switch"
    size = module._control("size", tuple[int, int] | Literal["auto"] | None, "")
    assert (size.kind, size.choices, size.optional) == ("size", ("auto",), True)


@pytest.mark.parametrize("preset", EVERY_PRESET, ids=lambda preset: preset.name)
def test_untouched_controls_mean_the_presets_own_values_in_every_mode(preset):
    untouched = options_from([look(control, preset)["value"] for control in controls()])
    for mode in ("animate", "interpolate", "loop"):
        assert untouched.resolved(preset, mode=mode) == AnimateOptions().resolved(preset, mode=mode)


@pytest.mark.parametrize("preset", EVERY_PRESET, ids=lambda preset: preset.name)
def test_motion_has_the_presets_range_and_says_which_way_moves_more(preset):
    motion = look(by_name("motion"), preset)
    assert (motion["minimum"], motion["maximum"]) == (preset.motion.low, preset.motion.high)
    assert ("larger" in motion["info"]) == (preset.motion.unit == "frame stride")


@given(
    steps=st.none() | st.integers(1, 1000),
    seed=st.integers(0, MAX_SEED),
    guidance=st.none() | st.floats(0, 100).map(lambda number: round(number, 2)),
    size=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda size: (64 * size[0], 64 * size[1])),
    fit=st.sampled_from(["cover", "contain", "stretch"]),
    negative=st.text(max_size=20).map(str.strip),
    deterministic=st.booleans(),
    motion=st.integers(8, 24),
    sampler=st.sampled_from([None, "ddim"]),
    guidance_interval=st.none() | st.just((200, 800)),
    quality=st.sampled_from([None, *get_args(Quality)]),
)
def test_what_is_shown_of_options_reads_back_as_the_same_options(**values):
    options = AnimateOptions(**values)
    again = options_from(shown(options, BUNDLED))
    assert again.resolved(BUNDLED) == options.resolved(BUNDLED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "many"}, "steps must be a number, got 'many'."),
        ({"seed": "1.5"}, "seed must be a number, got '1.5'."),
        ({"guidance_interval": "some"}, "guidance_interval must be two timesteps, such as 200-800, got 'some'."),
        ({"size": "large"}, "size must be width x height in pixels, such as 1024x576, got 'large'."),
        ({"colour": "red"}, "unknown options colour; known are"),
        ({"deterministic": "yes"}, "deterministic must be of type bool, got 'yes'."),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_in_words(values, message):
    with pytest.raises(InputError, match="^" + message.replace(".", r"\.")):
        options_from(values)


def test_sizes_are_written_width_first():
    assert options_from({"size": "192x128"}).size == (128, 192)
    assert shown(AnimateOptions(size=(128, 192)), BUNDLED)[[c.name for c in controls()].index("size")] == "192x128"
