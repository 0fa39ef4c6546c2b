"""A story's file is read as written, and whatever is wrong with it is told with its line."""

from fractions import Fraction

import pytest
import yaml

from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from dynamicrafter.specs import pictures
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.pictures import load_picture
from dynamicrafter.story.format import PictureShot, TitleCard, read_story, story_of
from dynamicrafter.story.located import locate, read_located
from stories import write_story, write_tone

SHOT = "shots:\n  - picture: red.png\n"
NEXT = "  - picture: previous\n"


def test_a_story_is_read_as_it_is_written(tmp_path):
    write_tone(tmp_path / "tone.wav", seconds=1)
    story = read_story(
        write_story(
            tmp_path,
            """\
            model: 512
            transition_model: interp
            audio: tone.wav
            defaults: {fps: 24000/1001, size: 128x64, steps: 7, seed: 5, frames: 9}
            shots:
              - title: Hello
                frames: 3
                background: "#102030"
                color: gold
              - picture: red.png
                prompt: a boat
                seconds: 0.5
                seed: 6
                transition: {kind: crossfade, frames: 2}
              - picture: previous
                guidance: 3
                transition: {kind: interpolate, frames: 4, prompt: dusk, steps: 2}
              - picture: ./blue.png
            """,
        )
    )
    card, first, second, third = story.shots
    assert (story.model, story.transition_model, story.sound) == ("512", "interp", tmp_path / "tone.wav")
    assert (story.fps, story.size) == (Fraction(24000, 1001), (64, 128))
    assert isinstance(card, TitleCard)
    assert (card.look.text, card.look.background, card.look.color, card.num_frames) == ("Hello", "#102030", "gold", 3)
    base = AnimateOptions(size=(64, 128), steps=7, seed=5, frames=9)
    assert isinstance(first, PictureShot)
    assert (first.picture.path, first.prompt) == (str(tmp_path / "red.png"), "a boat")
    assert first.clip.options == AnimateOptions(size=(64, 128), steps=7, seed=6, frames=12)  # half a second
    assert (first.transition.kind, first.transition.num_frames) == ("crossfade", 2)
    assert second.picture is None
    assert second.clip.options.guidance == 3
    between = second.transition
    assert (between.kind, between.num_frames, between.prompt) == ("interpolate", 4, "dusk")
    assert between.clip.options == AnimateOptions(size=(64, 128), steps=2, seed=5, frames=6)
    assert third.picture.path == str(tmp_path / "blue.png")
    assert third.clip.options == base
    assert third.transition is None


@pytest.mark.parametrize("place", ["defaults", "shot"])
def test_every_option_of_a_clip_may_stand_in_the_defaults_and_in_a_shot(tmp_path, place):
    options = AnimateOptions(seed=9, negative="blur", image_guidance=2.0, deterministic=True, fit="contain")
    values = {name: value for name, value in options.resolved(get_preset("512")).as_dict().items() if name != "size"}
    options = AnimateOptions(**values)
    shot = {"picture": "red.png"}
    content = {"defaults": values, "shots": [shot]} if place == "defaults" else {"shots": [shot | values]}
    story = read_story(write_story(tmp_path, yaml.safe_dump(content)))
    assert story.shots[0].clip.options == options


ERRORS = {
    "nothing": ("", "story.yaml is empty; write a story in it."),
    "no YAML": ("shots: [", ", line 1: this is no YAML that can be read (expected the node content"),
    "an alias": (
        "model: &a x\naudio: *a\n",
        ", line 2: this is no YAML that can be read (aliases can't be used here",
    ),
    "a program": ("model: !!python/object:os.system x", ", line 1: this is no YAML that can be read (could not"),
    "too deep": ("[" * 3000, "story.yaml is nested too deeply"),
    "no shots": ("model: x\n", ", line 1: shots must be a list of at least one shot"),
    "empty shots": ("model: x\nshots: []\n", ", line 2: shots must be a list of at least one shot"),
    "unknown key": ("shotz: []\n", ", line 1: a story has no key 'shotz'; did you mean shots?"),
    "unknown default": ("defaults:\n  stepz: 3\n" + SHOT, ", line 2: defaults has no key 'stepz'; did you mean steps?"),
    "unknown key of a shot": (SHOT + "    promt: a", ", line 3: a shot has no key 'promt'; did you mean prompt?"),
    "unknown and unlike": (SHOT + "    zz: a", ", line 3: a shot has no key 'zz'; known are picture, prompt, "),
    "twice": (SHOT + "    prompt: a\n    prompt: b", ", line 4: prompt stands here twice; leave one out."),
    "no text": (SHOT + "    prompt: no", ", line 3: prompt must be text, got False; put it into quotes."),
    "no picture": ("shots:\n  - prompt: a", ", line 2: picture is missing; name a file, or previous"),
    "gone": (
        "shots:\n\n  - picture:\n      gone.png",
        ", line 4: {folder}/gone.png does not exist; check the picture's",
    ),
    "no one before": ("shots:\n" + NEXT, ", line 2: picture can't be previous in the first shot; name a file."),
    "only a card before": (
        "shots:\n  - {title: a, seconds: 1}\n" + NEXT,
        ", line 3: picture can't be previous in the first shot; name a file.",
    ),
    "range": (SHOT + "    steps: 0", ", line 3: steps must be between 1 and 1000, got 0; try 1."),
    "type": (SHOT + "    motion: 0.5", ", line 3: motion must be a whole number, got 0.5."),
    "choice": (SHOT + "    fit: covr", ", line 3: fit must be one of cover, contain, stretch, got 'covr'."),
    "range of a default": ("defaults:\n  eta: 2\n" + SHOT, ", line 2: eta must be between 0 and 1, got 2; try 1."),
    "fps": ("defaults: {fps: fast}\n" + SHOT, ", line 1: fps must be a number or a fraction such as 24000/1001"),
    "size": ("defaults:\n  size: 100x64\n" + SHOT, ", line 2: width must be a positive multiple of 64 pixels, got 100"),
    "no size": ("defaults:\n  size: big\n" + SHOT, ", line 2: size must be width x height in pixels, such as 1024x576"),
    "two sizes": (SHOT + "    size: 64x64", ", line 3: size is one for the whole story; write it under defaults."),
    "two rates": (SHOT + "    fps: 9", ", line 3: fps is one for the whole story; write it under defaults."),
    "two lengths": (
        SHOT + "    frames: 3\n    seconds: 2",
        ", line 4: seconds and frames are two words for one length",
    ),
    "too short": (SHOT + "    seconds: 0.01", ", line 3: seconds must be at least 1/8 for one frame at 8 a second"),
    "not finite": (SHOT + "    seconds: .nan", ", line 3: seconds must be a number above 0 and up to 3600, got nan."),
    "too long": (SHOT + "    seconds: 3000", "(3000 s at 8 frames a second)"),
    "long prompt": (
        SHOT + f"    negative: {'w' * 2001}",
        ", line 3: negative must be at most 2000 characters, got 2001",
    ),
    "after the last": (SHOT + "    transition: cut", ", line 3: transition leads to no shot after the last; leave it"),
    "no transition": (
        SHOT + "    transition: fade\n" + NEXT,
        ", line 3: kind of a transition must be one of cut, crossfade, interpolate, got 'fade'.",
    ),
    "no length": (SHOT + "    transition: crossfade\n" + NEXT, ", line 3: crossfade needs a length; write {kind"),
    "length of a cut": (
        SHOT + "    transition:\n      kind: cut\n      seconds: 1\n" + NEXT,
        ", line 5: seconds does not go with cut; leave it out.",
    ),
    "range of a transition": (
        SHOT + "    transition: {kind: interpolate,\n      guidance: 900}\n" + NEXT,
        ", line 4: guidance must be between 0 and 100, got 900; try 100.",
    ),
    "long transition": (
        SHOT + "    transition: {kind: interpolate, frames: 5000}\n" + NEXT,
        "(with the 2 that it shares with its shots)",
    ),
    "letters": ("shots:\n  - title: é\n    seconds: 1", ", line 2: title needs 'é', which Pillow's own font lacks"),
    "no letters": ("shots:\n  - title: ''\n    seconds: 1", ", line 2: title must not be empty"),
    "no length of a card": (
        "shots:\n  - title: a",
        ", line 2: seconds is missing; a title card needs seconds or frames",
    ),
    "colour": ("shots:\n  - {title: a, seconds: 1,\n    color: xx}", ", line 3: colour 'xx' is unknown; write a name"),
    "background": ("shots:\n  - {title: a, seconds: 1,\n    background: gone.png}", ", line 3: {folder}/gone.png does"),
    "font": ("shots:\n  - {title: a, seconds: 1, font: red.png}", ", line 2: font {folder}/red.png can't be read"),
    "no font": (
        "shots:\n  - {title: a, seconds: 1, font: gone.ttf}",
        ", line 2: font {folder}/gone.ttf does not exist",
    ),
    "control characters": ("model: a\x07\n", "this is no YAML that can be read (unacceptable character"),
    "sound": ("audio: red.png\n" + SHOT, ", line 1: {folder}/red.png is no sound that can be read here"),
    "no path": ("shots:\n  - {picture: ''}", ", line 2: picture must name a file, got ''."),
}


@pytest.mark.parametrize(("text", "said"), ERRORS.values(), ids=ERRORS)
def test_what_is_wrong_is_said_in_one_line_with_file_and_line(tmp_path, text, said):
    path = write_story(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_story(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert said.replace("{folder}", str(tmp_path)) in message
    assert "\n" not in message


def test_a_cards_picture_fills_it_as_the_defaults_say(tmp_path):
    card = "  - {title: a, frames: 1, background: red.png}\n  - {title: a, frames: 1, fit: stretch}\n"
    story = read_story(write_story(tmp_path, f"defaults: {{fit: contain}}\nshots:\n{card}"))
    assert [shot.look.fit for shot in story.shots] == ["contain", "stretch"]


def test_files_that_are_no_stories_are_refused(tmp_path):
    (tmp_path / "huge.yaml").write_bytes(b"#" * (2**20 + 1))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for name, said in (
        ("huge.yaml", "must be at most 1048576 bytes"),
        ("bytes.yaml", "it is no UTF-8 text"),
        ("gone.yaml", "No such file"),
    ):
        with pytest.raises(InputError, match=said):
            read_story(tmp_path / name)


@pytest.mark.parametrize("written", ["200-800", "[200, 800]", '"[200, 800]"'])
def test_an_interval_is_read_in_every_spelling(tmp_path, written):
    story = read_story(write_story(tmp_path, SHOT + f"    guidance_interval: {written}"))
    assert story.shots[0].clip.options.guidance_interval == (200, 800)


@pytest.mark.parametrize(("written", "size"), [("128x64", (64, 128)), ("[64, 128]", (64, 128)), ("auto", "auto")])
def test_a_size_is_width_x_height_or_a_list_of_height_and_width_or_the_pictures_own(tmp_path, written, size):
    assert read_story(write_story(tmp_path, f"defaults: {{size: {written}}}\n" + SHOT)).size == size


def test_a_picture_of_several_shots_is_decoded_once(tmp_path, monkeypatch):
    decoded = []
    original = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda source: decoded.append(source) or original(source))
    story = read_story(write_story(tmp_path, SHOT + "  - picture: red.png\n  - picture: blue.png\n"))
    assert decoded == [tmp_path / "red.png", tmp_path / "blue.png"]
    assert story.shots[0].picture is story.shots[1].picture


def test_a_story_that_stands_in_no_file_is_held_to_the_same_rules(tmp_path):
    write_story(tmp_path, "")
    picture = load_picture(tmp_path / "red.png", name="a.png")
    story = story_of(locate({"shots": [locate({"picture": picture, "steps": 3}, "shot 1")]}, "the story"))
    assert story.shots[0].picture is picture
    assert story.source == {"shots": [{"picture": "a.png", "steps": 3}]}
    with pytest.raises(InputError, match=r"^shot 1: steps must be between 1 and 1000, got 0; try 1\.$"):
        story_of(locate({"shots": [locate({"picture": picture, "steps": 0}, "shot 1")]}, "the story"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defaults: {seed: 0123}", "line 1: YAML reads 0123 as 83; write it plainly"),
        ("shots:\n  - seconds: 1:30", "line 2: YAML reads 1:30 as 90"),
        ("shots:\n  - prompt: wave #2 rolls in", "line 2: '#2 rolls in' behind a text is a comment to YAML; put"),
    ],
)
def test_values_that_yaml_reads_otherwise_than_they_are_written_are_refused(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_located(tmp_path / "a.yaml")


def test_comments_and_quoted_values_are_left_alone(tmp_path):
    (tmp_path / "a.yaml").write_text('a: wave  # the second\nb: "wave #2"\nc: 0\nd: "0123"\ne: wave#2\n')
    values = {"a": "wave", "b": "wave #2", "c": 0, "d": "0123", "e": "wave#2"}
    assert read_located(tmp_path / "a.yaml").plain() == values
