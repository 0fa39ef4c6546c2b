from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamicrafter.errors import InputError
from dynamicrafter.specs.adapters import Adapter
from dynamicrafter.specs.metadata import read_clip_metadata
from dynamicrafter.specs.options import AnimateOptions

CLIP = Path("clip.mp4")
METADATA = {
    "generator": "dynamicrafter 0.1.0",
    "mode": "animate",
    "model": {"name": "seeded:tiny", "preset": "512", "hash": ""},
    "lora": [{"path": "mine.safetensors", "scale": 0.5, "hash": "0" * 16}],
    "prompt": "a boat",
    "pictures": [{"path": "photo.png", "sha256": "0" * 64}],
    "options": AnimateOptions(steps=3, size=(64, 128)).as_dict() | {"size": [64, 128]},  # as JSON gives it back
    "item": "",
    "sample": 2,
    "device": "cpu",
    "dtype": "float32",
    "torch": "2.13.0",
    "output": {"fps": "24000/1001", "crf": 30},
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def test_metadata_gives_back_what_it_was_made_from():
    stored = read_clip_metadata(METADATA, clip=CLIP)
    assert stored.options == AnimateOptions(steps=3, size=(64, 128))
    assert (stored.mode, stored.prompt, stored.sample, stored.made_by.model) == ("animate", "a boat", 2, "seeded:tiny")
    assert [picture.path for picture in stored.pictures] == ["photo.png"]
    assert stored.made_by.loras == (Adapter(path=Path("mine.safetensors"), scale=0.5, hash="0" * 16),)
    assert (stored.fps, stored.crf) == ("24000/1001", 30)


@pytest.mark.parametrize("name", [name for name in METADATA if name != "options"])
@settings(max_examples=30, deadline=None)
@given(junk=JUNK)
def test_junk_in_any_place_is_refused_in_one_line_or_is_of_the_right_type(name, junk):
    metadata = METADATA | {name: junk}
    try:
        stored = read_clip_metadata(metadata, clip=CLIP)
    except InputError as error:
        line = str(error)
    else:
        assert isinstance(stored.sample, int)
        assert isinstance(stored.prompt, str)
        return
    assert "clip.mp4" in line
    assert "\n" not in line


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(METADATA["options"])), junk=JUNK)
def test_junk_in_an_option_is_refused_or_is_of_the_right_type(name, junk):
    try:
        options = read_clip_metadata(METADATA | {"options": METADATA["options"] | {name: junk}}, clip=CLIP).options
    except InputError:
        return
    assert getattr(options, name) == (tuple(junk) if name == "size" and junk is not None else junk)


@pytest.mark.parametrize("name", METADATA)
def test_a_missing_entry_is_named(name):
    metadata = {key: value for key, value in METADATA.items() if key != name}
    with pytest.raises(InputError, match=rf"^clip\.mp4 can't be repeated: its metadata has no usable '{name}'"):
        read_clip_metadata(metadata, clip=CLIP)


def test_true_is_no_sample_number():
    with pytest.raises(InputError, match="no usable 'sample'"):
        read_clip_metadata(METADATA | {"sample": True}, clip=CLIP)


def test_a_strange_mode_is_refused():
    with pytest.raises(InputError, match="says its mode is 'paint', which is none of animate, interpolate, loop"):
        read_clip_metadata(METADATA | {"mode": "paint"}, clip=CLIP)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"speed": 3}, "unknown options speed"), ({"steps": "x"}, "steps must be a whole number"), ({"size": 1}, "size")],
)
def test_options_of_a_wrong_name_or_type_are_refused(options, said):
    with pytest.raises(InputError, match=rf"^clip\.mp4 holds options that can't be repeated: .*{said}"):
        read_clip_metadata(METADATA | {"options": METADATA["options"] | options}, clip=CLIP)


@pytest.mark.parametrize(
    "keys",
    [
        {"prompts": ["a"], "closed": False, "frames": [0, 3]},
        {"prompts": ["a", 3], "closed": True, "frames": [0, 3, 6]},
        {"prompts": ["a"], "closed": "no", "frames": [0, 3, 6]},
        {"prompts": ["a"] * 7, "closed": False, "frames": [0, 3, 6]},
        {"prompts": ["a"], "closed": False, "frames": [0, 6, 3]},
        {"prompts": ["a"], "closed": False, "frames": [0, 3.5, 6]},
        "none",
    ],
)
def test_forged_keys_are_refused(keys):
    pictures = METADATA["pictures"] * 3
    with pytest.raises(InputError, match=r"clip\.mp4 can't be repeated"):
        read_clip_metadata(METADATA | {"mode": "interpolate", "pictures": pictures, "keys": keys}, clip=CLIP)
