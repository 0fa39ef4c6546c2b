"""Controls derive from the options' schema, and give the same options back."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter import AnimateOptions
from dynamicrafter.errors import InputError
from dynamicrafter.faces.controls import FREQUENT, controls, groups, options_from
from dynamicrafter.modes import MODES
from dynamicrafter.presets import BUNDLED, QUALITIES, every_preset
from dynamicrafter.randomness import MAX_SEED
from dynamicrafter.samplers import SAMPLERS
from dynamicrafter.ui.controls import look, value_of


def by_name(name, preset=BUNDLED):
    return next(control for control in controls(preset) if control.name == name)


def shown(options, preset):
    """What the page's components hold."""
    return [value_of(control, getattr(options, control.name)) for control in controls(preset)]


def test_every_option_has_a_control_with_its_docstring_and_the_frequent_ones_come_first():
    names = [control.name for control in controls(BUNDLED)]
    assert sorted(names) == sorted(option.name for option in fields(AnimateOptions))
    assert all(len(control.help) > 10 for control in controls(BUNDLED))
    assert tuple(names[: len(FREQUENT)]) == FREQUENT
    folded = {title: [option.name for option in options] for title, options in groups().items()}
    assert sorted(name for each in folded.values() for name in each) == sorted(set(names) - set(FREQUENT))
    assert folded["Guidance"] == ["image_guidance", "guidance_rescale", "guidance_interval"]


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("seed", "Textbox"),
        ("steps", "Textbox"),
        ("window", "Slider"),
        ("motion", "Slider"),
        ("fit", "Dropdown"),
        ("sampler", "Dropdown"),
        ("deterministic", "Checkbox"),
        ("size", "Textbox"),
        ("negative", "Textbox"),
    ],
)
def test_an_options_kind_chooses_its_component(name, component):
    assert look(by_name(name))["component"] == component


def test_ranges_and_words_are_those_of_the_schema(monkeypatch):
    window = look(by_name("window"))
    assert (window["minimum"], window["maximum"], window["step"], window["value"]) == (4, 16, 1, 16)
    assert look(by_name("size"))["placeholder"] == "128x128 (model's own) or auto"
    monkeypatch.setitem(SAMPLERS, "euler", replace(SAMPLERS["unipc"], name="euler"))
    assert ("euler", "euler") in look(by_name("sampler"))["choices"]


@pytest.mark.parametrize("preset", every_preset(), ids=lambda preset: preset.name)
def test_untouched_controls_mean_the_presets_own_values_in_every_mode(preset):
    untouched = options_from([look(control)["value"] for control in controls(preset)])
    for mode in MODES:
        assert untouched.resolved(preset, mode=mode) == AnimateOptions().resolved(preset, mode=mode)


@pytest.mark.parametrize("preset", every_preset(), ids=lambda preset: preset.name)
def test_motion_has_the_presets_range_and_says_which_way_moves_more(preset):
    motion = look(by_name("motion", preset))
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
    quality=st.sampled_from([None, *QUALITIES]),
)
def test_what_is_shown_of_options_reads_back_as_the_same_options(**values):
    options = AnimateOptions(**values)
    again = options_from(shown(options, BUNDLED))
    assert again.resolved(BUNDLED) == options.resolved(BUNDLED)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": "many"}, "steps must be a whole number, got 'many'."),
        ({"seed": "1.5"}, "seed must be a whole number, got '1.5'."),
        ({"guidance_interval": "some"}, "guidance_interval must be two timesteps from 0 to 999, the lower first, such"),
        ({"size": "large"}, "size must be width x height in pixels, such as 1024x576"),
        ({"size": "320,512"}, "size must be width x height in pixels, such as 1024x576"),
        ({"colour": "red"}, "unknown options colour; known are"),
        ({"deterministic": "perhaps"}, "deterministic must be true or false, got 'perhaps'."),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_in_words(values, message):
    with pytest.raises(InputError, match="^" + message.replace(".", r"\.")):
        options_from(values)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ({"size": "512x320"}, {"size": (320, 512)}),
        ({"size": [320, 512]}, {"size": (320, 512)}),
        ({"size": "auto"}, {"size": "auto"}),
        ({"guidance_interval": "200-800"}, {"guidance_interval": (200, 800)}),
        ({"guidance_interval": [200, 800]}, {"guidance_interval": (200, 800)}),
        ({"steps": 12.0, "seed": "7"}, {"steps": 12, "seed": 7}),
        ({"deterministic": "yes", "steps": "", "motion": None}, {"deterministic": True}),
    ],
)
def test_every_documented_spelling_is_read(written, value):
    assert options_from(written) == AnimateOptions(**value)


def test_sizes_are_written_width_first():
    assert value_of(by_name("size"), (128, 192)) == "192x128"
