import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter.cli.commands import AnimateCommand, DownloadCommand, InterpolateCommand, LoopCommand
from dynamicrafter.cli.parsing import UsageError, parse
from dynamicrafter.schema import FrameSize
from dynamicrafter.specs.options import AnimateOptions

FLAGS = {  # another value than the default for every option of a clip, as typed
    "steps": ("7", 7),
    "start_step": ("940", 940),
    "seed": ("9", 9),
    "guidance": ("3", 3.0),
    "image_guidance": ("2.5", 2.5),
    "guidance_rescale": ("0.25", 0.25),
    "eta": ("0", 0.0),
    "motion": ("5", 5),
    "frames": ("8", 8),
    "window": ("12", 12),
    "window_stride": ("3", 3),
    "size": ("1024x576", (576, 1024)),
    "fit": ("contain", "contain"),
    "negative": ("blur", "blur"),
    "sampler": ("dpm++", "dpm++"),
    "guidance_interval": ("200-800", (200, 800)),
    "cache": ("0.1", 0.1),
    "quality": ("fast", "fast"),
}


SWITCHES = {"deterministic": "--deterministic", "pin_first_frame": "--pin-first-frame"}


def animate(*words: str, default: AnimateCommand | None = None) -> AnimateCommand:
    return parse(AnimateCommand, words, prog="dynamicrafter animate", default=default)


def complaint(*words: str) -> str:
    with pytest.raises(UsageError) as raised:
        animate(*words)
    line = str(raised.value)
    assert "\n" not in line
    assert not set(line) & set("│╭╮╰╯─")
    return line


def test_every_option_of_a_clip_has_a_flag_of_its_own_name():
    assert {field.name for field in dataclasses.fields(AnimateOptions)} == set(FLAGS) | set(SWITCHES)
    for name, (typed, value) in FLAGS.items():
        options = animate("photo.jpg", f"--{name.replace('_', '-')}", typed).clip
        assert options == dataclasses.replace(AnimateOptions(), **{name: value})
    for name, flag in SWITCHES.items():
        assert animate("photo.jpg", flag).clip == AnimateOptions(**{name: True})


def test_flags_that_are_left_out_are_the_options_own_defaults():
    assert animate("photo.jpg").clip.as_dict() == AnimateOptions().as_dict()


def test_pictures_come_first_and_the_prompt_may_be_left_out():
    assert animate("photo.jpg", "-o", "a.mp4").prompts == ("",)
    command = animate("photo.jpg", "a boat", "-o", "a.mp4")
    assert [str(path) for path in command.pictures] == ["photo.jpg"]
    assert (command.prompts[0], str(command.output.output)) == ("a boat", "a.mp4")
    between = parse(InterpolateCommand, ["a.png", "b.png", "dusk"], prog="")
    assert [str(path) for path in between.pictures] == ["a.png", "b.png"]
    assert between.prompts == ("dusk",)
    assert parse(LoopCommand, ["a.png"], prog="").mode == "loop"


def test_flags_may_stand_before_pictures_and_words_that_are_numbers_may_be_prompts():
    command = animate("--seed", "4", "photo.jpg", "-5")
    assert (str(command.pictures[0]), command.prompts[0], command.clip.seed) == ("photo.jpg", "-5", 4)


def test_given_flags_win_over_another_default_even_where_they_repeat_the_options_own():
    earlier = animate("photo.jpg", "a boat", "--steps", "9", "--seed", "5", "--deterministic")
    command = animate("--seed", "123", "--no-deterministic", default=earlier)
    assert command == dataclasses.replace(earlier, clip=AnimateOptions(steps=9, seed=123))


@given(width=st.integers(0, 999_999), height=st.integers(0, 999_999), sign=st.sampled_from(["x", "X", "×", " x "]))
def test_a_size_is_written_width_first_and_kept_height_first(width, height, sign):
    assert FrameSize().convert(f"{width}{sign}{height}") == (height, width)


def test_a_size_can_be_left_to_the_picture():
    assert animate("photo.jpg", "--size", "auto").clip.size == "auto"
    assert animate(default=animate("photo.jpg", "--size", "AUTO")).clip.size == "auto"


@pytest.mark.parametrize("text", ["12", "x", "512x", "axb", "-64x64", "64x64x64", "", "6.4x64"])
def test_a_size_written_otherwise_is_refused_with_the_rule(text):
    line = complaint("photo.jpg", f"--size={text}")
    assert line == f"--size must be width x height in pixels, such as 1024x576, or auto, got {text!r}."


@pytest.mark.parametrize("flag", ["--steps", "--seed", "--motion", "--frames", "--crf", "--samples"])
@pytest.mark.parametrize("value", ["many", "3.5", ""])
def test_a_count_must_be_a_whole_number(flag, value):
    assert complaint("photo.jpg", f"{flag}={value}") == f"{flag} must be a whole number, got {value!r}."


def test_a_long_wrong_value_is_shown_in_part():
    assert complaint("photo.jpg", "--seed", "9" * 5000) == f"--seed must be a whole number, got '{'9' * 50}…'."


@pytest.mark.parametrize("flag", ["--guidance", "--image-guidance", "--guidance-rescale", "--eta"])
def test_a_scale_must_be_a_number(flag):
    assert complaint("photo.jpg", flag, "much") == f"{flag} must be a number, got 'much'."


def test_a_choice_lists_what_there_is():
    assert complaint("photo.jpg", "--fit", "crop") == "--fit must be one of cover, contain, stretch, got 'crop'."


@pytest.mark.parametrize("words", [("--stepps", "3"), ("photo.jpg", "--stepps", "3"), ("photo.jpg", "--stepps=3")])
def test_a_misspelt_option_is_answered_with_the_closest(words):
    assert complaint(*words) == "unknown option --stepps; did you mean --steps?"


@pytest.mark.parametrize("word", ["--zzz", "-z", "--zzz=3"])
def test_an_option_like_no_other_is_answered_with_the_help(word):
    name = word.removesuffix("=3")
    assert complaint(word) == f"unknown option {name}; `dynamicrafter animate --help` lists what there is."


@pytest.mark.parametrize("word", ["--imag", "--word", "--repeat", "--picture-name"])
def test_what_is_no_option_is_never_suggested(word):
    assert f"did you mean {word}" not in complaint(word)


def test_an_option_without_its_value_says_so():
    assert complaint("photo.jpg", "--seed") == "--seed needs a value."
    assert complaint("photo.jpg", "--seed", "--quiet") == "--seed needs a value."


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_complaint_is_one_sentence_on_every_terminal(monkeypatch, encoding):
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert complaint("photo.jpg", "--steps", "x") == "--steps must be a whole number, got 'x'."
    assert complaint("photo.jpg", "--seed") == "--seed needs a value."
    with pytest.raises(UsageError, match=r"^PRESET is missing; `dynamicrafter download --help` explains\.$"):
        parse(DownloadCommand, [], prog="dynamicrafter download")


def test_an_empty_path_is_not_the_current_folder():
    assert complaint("photo.jpg", "-o", "").endswith("--output must not be empty; name a file or a folder.")


def test_the_word_none_is_a_name_like_any_other():
    words = ["photo.jpg", "-o", "None", "--model", "None", "--encoders", "None"]
    command = animate(*words)
    assert (command.output.output, command.model.name) == (Path("None"), "None")
    assert command.model.encoders == Path("None")


def test_a_prompt_without_quotes_is_answered_with_quotes():
    line = complaint("photo.jpg", "a", "boat")
    assert line == "unexpected argument 'boat'; put a prompt of several words into quotes, and the output behind -o."


def test_a_missing_argument_is_named():
    with pytest.raises(UsageError, match="PRESET is missing; `dynamicrafter download --help` explains"):
        parse(DownloadCommand, [], prog="dynamicrafter download")


def test_help_lists_every_flag_and_shows_what_comes_from_the_preset(capsys):
    with pytest.raises(SystemExit) as ended:
        animate("--help-all")
    assert not ended.value.code
    shown = capsys.readouterr().out
    for name in FLAGS:
        assert f"--{name.replace('_', '-')} " in shown
    assert "{None}" not in shown
    assert "default: None" not in shown
    assert "(default: the preset's own)" in " ".join(shown.split())
