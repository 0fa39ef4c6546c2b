"""What a story's clips are, which are made again, and what the film shows of them."""

import dataclasses
import json
import shutil
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from checkpoint_files import write_safetensors
from dynamicrafter import Animator
from dynamicrafter.errors import InputError
from dynamicrafter.media.video import read_clip, read_metadata
from dynamicrafter.pipeline.describing import describe
from dynamicrafter.specs import pictures
from dynamicrafter.specs.model import ModelSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.story.format import read_story
from dynamicrafter.story.joining import blended, film_metadata, frames_of, is_made, join
from dynamicrafter.story.kept import KeptShots
from dynamicrafter.story.making import find_kept, make_clips
from dynamicrafter.story.plan import plan_story
from published_files import published
from stories import TINY, write_story

STORY = """\
defaults: {steps: 1, guidance: 1, frames: 4, size: 64x64, seed: 3}
shots:
  - picture: red.png
    prompt: one
    transition: {kind: crossfade, frames: 2}
  - picture: blue.png
    prompt: two
  - picture: previous
    prompt: three
    transition: {kind: interpolate, frames: 2, prompt: over}
  - title: End
    frames: 3
    background: navy
"""

load = cache(lambda: Animator.from_pretrained("seeded:tiny", device="cpu", dtype="float32"))


class Callbacks:
    def __init__(self):
        self.steps, self.was_made, self.was_kept = 0, [], []

    def begins(self, clip):
        pass

    def on_step(self, done, steps):
        self.steps += 1

    def made(self, clip):
        self.was_made.append(clip.name)

    def kept(self, clip):
        self.was_kept.append(clip.name)


def planned(folder, text=STORY):
    return plan_story(read_story(write_story(folder, text)), model=TINY)


def made(folder, text=STORY, *, load_model=lambda _: load()):
    """The plan, its shots, their records and what was called."""
    plan, shots, callbacks = planned(folder, text), KeptShots(folder / "film.shots"), Callbacks()
    with shots.locked():
        records = make_clips(plan, shots, load=load_model, callbacks=callbacks)
    return plan, shots, records, callbacks


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A story that was made once; leave it as it is."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *made(folder)


@pytest.fixture
def copy(whole, tmp_path):
    """The same, to be changed."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def pixels_of(shots, records, clip):
    return np.stack([shots.frame(clip, index, records[clip.key]) for index in range(clip.num_frames)])


def test_each_clip_is_what_the_animator_makes_of_its_picture_or_of_the_frame_before(whole):
    folder, plan, shots, records, callbacks = whole
    options = {"steps": 1, "guidance": 1.0, "frames": 4, "size": (64, 64), "seed": 3}
    first, second, third, between = (pixels_of(shots, records, piece) for piece in plan.clips)
    np.testing.assert_array_equal(first, load().animate(folder / "red.png", "one", **options).frames)
    np.testing.assert_array_equal(second, load().animate(folder / "blue.png", "two", **options).frames)
    np.testing.assert_array_equal(third, load().animate(second[-1], "three", **options).frames)
    navy = Image.new("RGB", (64, 64), "navy")
    card = list(frames_of(plan, shots, records))[-1]
    assert (card == np.asarray(navy)).all(-1).any()
    expected = load().interpolate(third[-1], card, "over", **options)
    np.testing.assert_array_equal(between, expected.frames)
    assert callbacks.was_made == ["shot 1", "shot 2", "shot 3", "between shots 3 and 4"]
    assert callbacks.steps == 4


def test_the_film_shows_every_frame_in_its_place(whole):
    _, plan, shots, records, _ = whole
    first, second, third, between = (pixels_of(shots, records, piece) for piece in plan.clips)
    shown = np.stack(list(frames_of(plan, shots, records)))
    expected = [
        *first[:2],
        blended(first[2], second[0], 1 / 3),
        blended(first[3], second[1], 2 / 3),
        *second[2:],
        *third[1:],
        *between[1:3],
    ]
    np.testing.assert_array_equal(shown[:-3], np.stack(expected))
    assert (shown[-3:] == shown[-1]).all()
    assert len(shown) == plan.num_frames


def test_a_blend_is_the_rounded_mean_that_its_share_says():
    below, above = np.full((1, 1, 3), 10, np.uint8), np.full((1, 1, 3), 250, np.uint8)
    assert [int(blended(below, above, share)[0, 0, 0]) for share in (0, 0.25, 0.5, 1)] == [10, 70, 130, 250]


def test_every_clip_is_kept_with_the_record_of_its_making(whole):
    _, plan, shots, records, _ = whole
    one, two, three, between = plan.clips
    kept = read_metadata(shots.path_of(three))
    assert kept["options"] == json.loads(json.dumps(three.options.as_dict()))
    assert kept["prompt"] == "three"
    assert kept["model"]["name"] == "seeded:tiny"
    assert kept["story"]["key"] == three.key
    assert kept["story"]["ends"] == [records[two.key].frames[-1]]
    assert read_metadata(shots.path_of(one))["pictures"][0]["sha256"] == one.sources[0].sha256
    assert records[between.key].ends == (records[three.key].frames[-1],)
    assert read_clip(shots.path_of(one))[0].shape == (4, 64, 64, 3)


def test_a_picture_is_decoded_once_and_options_are_resolved_before_a_model_is_loaded(tmp_path, monkeypatch):
    def load_model(_):
        monkeypatch.setattr(AnimateOptions, "resolved", fail)
        return load()

    decoded, original = [], pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda source: decoded.append(source) or original(source))
    made(tmp_path, load_model=load_model)
    files = [source for source in decoded if isinstance(source, Path)]
    assert sorted(path.name for path in files) == ["blue.png", "red.png"]


def fail(*_):
    raise AssertionError("it loaded a model")


def test_nothing_is_made_twice_and_no_model_is_loaded_for_nothing(copy):
    *_, callbacks = made(copy, load_model=fail)
    assert callbacks.was_made == []
    assert len(callbacks.was_kept) == 4


@pytest.mark.parametrize(
    ("before", "after", "again"),
    [
        ("prompt: one", "prompt: uno", ["shot 1"]),
        ("prompt: two", "prompt: dos", ["shot 2", "shot 3", "between shots 3 and 4"]),
        ("prompt: three", "prompt: tres", ["shot 3", "between shots 3 and 4"]),
        ("title: End", "title: Fin", ["between shots 3 and 4"]),  # which leads to the card
        ("frames: 2}", "frames: 1}", []),
    ],
)
def test_what_was_changed_alone_is_made_again_and_what_follows_from_it(copy, before, after, again):
    *_, callbacks = made(copy, STORY.replace(before, after))
    assert callbacks.was_made == again


def test_a_shot_that_is_asked_for_twice_is_made_once(tmp_path):
    shot = "  - {picture: red.png, prompt: a}\n"
    *_, callbacks = made(tmp_path, f"defaults: {{steps: 1, frames: 1, size: 64x64}}\nshots:\n{shot}{shot}")
    assert (callbacks.was_made, callbacks.was_kept) == (["shot 1"], ["shot 2"])


def test_a_clip_that_is_not_whole_is_made_again(copy):
    plan, shots = planned(copy), KeptShots(copy / "film.shots")
    one, two, *_ = plan.clips
    (shots.path_of(one) / "0002.png").unlink()
    (shots.path_of(two) / "clip.json").write_text("{}")
    assert not find_kept(plan, shots).keys() & {one.key, two.key}
    *_, callbacks = made(copy)
    assert callbacks.was_made == ["shot 1", "shot 2"]  # shot 3 goes on from the same frame as before


def test_what_was_made_of_another_frame_is_made_again(copy):
    """As when the shot before was made again on a machine that rounds otherwise."""
    plan, shots = planned(copy), KeptShots(copy / "film.shots")
    three = plan.clips[2]
    note = json.loads((shots.path_of(three) / "clip.json").read_text())
    note["dynamicrafter"]["story"]["ends"] = ["0" * 16]
    (shots.path_of(three) / "clip.json").write_text(json.dumps(note))
    *_, callbacks = made(copy)
    assert callbacks.was_made == ["shot 3"]


def test_a_frame_that_was_changed_is_named(copy):
    plan, shots = planned(copy), KeptShots(copy / "film.shots")
    records = find_kept(plan, shots)
    frame = shots.path_of(plan.clips[0]) / "0001.png"
    for content in (Image.new("RGB", (64, 64), "red"), None):
        if content is None:
            frame.write_bytes(frame.read_bytes()[:100])
        else:
            content.save(frame)
        with pytest.raises(InputError, match=r"0001\.png was damaged or changed since it was made; delete the folder"):
            list(frames_of(plan, shots, records))


def test_two_programs_do_not_make_one_story_at_a_time(copy):
    shots = KeptShots(copy / "film.shots")
    with shots.locked(), pytest.raises(InputError, match="another program is making the shots"):
        made(copy)
    *_, callbacks = made(copy)
    assert len(callbacks.was_kept) == 4


def test_leftovers_of_a_killed_program_are_cleared_away(copy):
    half = copy / "film.shots" / ".dynamicrafter-0123456789ab"
    half.mkdir()
    (half / "0000.png").write_text("half")
    made(copy)
    assert not half.exists()


def test_pictures_and_models_that_change_meanwhile_are_noticed(tmp_path):
    def change(_model):
        Image.new("RGB", (64, 64), "lime").save(tmp_path / "red.png")
        plan.clips[0].sources[0].let_go()
        return load()

    plan = planned(tmp_path)
    shots = KeptShots(tmp_path / "film.shots")
    with (
        shots.locked(),
        pytest.raises(InputError, match=r"red\.png changed or went away since it was looked at; run again"),
    ):
        make_clips(plan, shots, load=change, callbacks=Callbacks())
    plan = planned(tmp_path)
    other = dataclasses.replace(plan.clips[0], model=dataclasses.replace(TINY, hash="0123456789abcdef"))
    with pytest.raises(InputError, match="the files of model seeded:tiny changed"):
        make_clips(
            dataclasses.replace(plan, clips=(other,)),
            KeptShots(tmp_path / "film.shots"),
            load=lambda _: load(),
            callbacks=Callbacks(),
        )
    assert not [path for path in (tmp_path / "film.shots").iterdir() if path.name != ".lock"]


def test_the_file_says_what_it_was_made_of_and_is_known_again(whole, tmp_path):
    _, plan, shots, records, _ = whole
    film = tmp_path / "film.mp4"
    metadata = film_metadata(plan, records, crf=None)
    assert not is_made(film, metadata)
    join(film, plan, shots, records, metadata=metadata)
    assert read_metadata(film) == json.loads(json.dumps(metadata))
    assert metadata["story"] == plan.story.source
    assert metadata["options"]["steps"] == 1
    assert [shot["name"] for shot in metadata["shots"]] == [clip.name for clip in plan.clips]
    assert is_made(film, metadata)
    assert not is_made(film, film_metadata(plan, records, crf=30))
    film.write_bytes(film.read_bytes()[:-100])
    assert not is_made(film, metadata)


def test_memory_of_joining_does_not_grow_with_the_story(tmp_path):
    def peak(frames):
        plan = planned(tmp_path, f"defaults: {{size: 64x64}}\nshots:\n  - {{title: a, frames: {frames}}}\n")
        tracemalloc.start()
        try:
            join(tmp_path / "film.mp4", plan, KeptShots(tmp_path), {}, metadata={})
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    short = peak(40)
    assert peak(800) < short + 10 * 64 * 64 * 3


@pytest.mark.parametrize("name", ["seeded:tiny", "bundled"])
def test_what_is_known_of_a_model_before_it_is_loaded_is_what_it_turns_out_to_be(name):
    known, animator = describe(ModelSpec(name=name)), Animator.from_pretrained(name, device="cpu", dtype="float32")
    assert (known.preset, known.hash) == (animator.preset, animator.model_hash)


@pytest.mark.parametrize("golden", ["tiny256", "tiny1024"])
def test_a_published_file_is_known_by_its_keys_as_when_it_is_loaded(tmp_path, golden):
    path = write_safetensors(tmp_path / "model.safetensors", published(golden))
    animator = Animator.from_pretrained(path, device="cpu", dtype="float32")
    known = describe(ModelSpec(name=path))
    assert (known.preset, known.hash) == (animator.preset, animator.model_hash)
