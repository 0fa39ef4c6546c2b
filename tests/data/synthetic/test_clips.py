import numpy as np
import pytest
import torch
from PIL import Image

from dynamicrafter.data.synthetic import held_out_pictures, held_out_wordings
from dynamicrafter.data.synthetic.clips import FASTEST, SLOWEST, SyntheticClips
from dynamicrafter.data.synthetic.motions import KINDS
from dynamicrafter.data.synthetic.photos import HELD_OUT, TRAIN, photo, photos_in
from dynamicrafter.data.synthetic.pictures import photo_crop, training_picture
from dynamicrafter.data.synthetic.wordings import caption, wordings
from dynamicrafter.errors import InputError

ALL = SyntheticClips(shares=dict.fromkeys(KINDS, 1.0), size=64)


def test_a_position_always_gives_the_same_clip() -> None:
    again = SyntheticClips(shares=dict.fromkeys(KINDS, 1.0), size=64)
    for position in (0, 7, 10**9):
        one, other = ALL.draw(position), again.draw(position)
        assert torch.equal(one.pixels, other.pixels)
        assert (one.caption, one.motion) == (other.caption, other.motion)
    assert not torch.equal(ALL.draw(0).pixels, ALL.draw(1).pixels)


def test_another_seed_gives_other_clips() -> None:
    other = SyntheticClips(shares=dict.fromkeys(KINDS, 1.0), size=64, seed=1)
    assert not torch.equal(ALL.draw(0).pixels, other.draw(0).pixels)


def test_samples_have_the_shape_that_training_reads() -> None:
    sample = ALL.draw(3)
    assert sample.pixels.shape == (3, 16, 64, 64)
    assert sample.pixels.dtype == torch.uint8
    assert FASTEST <= sample.motion <= SLOWEST


def test_kinds_come_in_the_shares_asked_for() -> None:
    stream = SyntheticClips(shares={"pan left": 3, "still": 1}, size=64, num_frames=2)
    kinds = [stream.known(position)[1] for position in range(200)]
    assert 0.65 < kinds.count("pan left") / 200 < 0.85
    assert set(kinds) == {"pan left", "still"}


def test_no_photo_is_both_trained_on_and_held_out() -> None:
    assert not set(TRAIN) & set(HELD_OUT)
    assert [pixels.shape[2] for _, pixels in held_out_pictures()] == [3] * len(HELD_OUT)


def test_no_wording_is_both_trained_on_and_held_out() -> None:
    for kind in KINDS:
        assert not set(wordings(kind, "train")) & set(wordings(kind, "held_out"))


def test_every_word_of_a_held_out_wording_stands_in_some_wording_of_training() -> None:
    rng = np.random.default_rng(0)
    known = {word.strip(",") for kind in KINDS for _ in range(400) for word in caption(rng, kind).split()}
    held_out = {word for texts in held_out_wordings().values() for text in texts for word in text.split()}
    assert held_out <= known


def test_opposite_motions_never_share_a_caption() -> None:
    for split in ("train", "held_out"):
        texts = [text for kind in KINDS for text in wordings(kind, split)]
        assert len(texts) == len(set(texts))


def test_captions_carry_their_wording_whatever_stands_around_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = caption(rng, "zoom in")
        assert any(words in text for words in wordings("zoom in", "train"))


def test_pictures_are_many() -> None:
    rng = np.random.default_rng(0)
    pictures = [training_picture(rng, 64) for _ in range(40)]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 40


def test_a_photo_that_is_not_there_is_named_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"skimage/nobody.png is not on this machine; run pip install"):
        photo("skimage/nobody.png")


def test_variations_move_one_picture_in_different_ways() -> None:
    stream = SyntheticClips(shares=dict.fromkeys(KINDS[:8], 1.0), size=64, variations=4)
    clips = [stream.known(position) for position in range(8)]
    for group in (clips[:4], clips[4:]):
        assert len({kind for _, kind in group}) == 4
        assert len({sample.motion for sample, _ in group}) == 1
        assert all(torch.equal(sample.pixels[:, 0], group[0][0].pixels[:, 0]) for sample, _ in group)
    assert not torch.equal(clips[0][0].pixels[:, 0], clips[4][0].pixels[:, 0])


def test_what_turns_back_or_becomes_another_picture_is_told_from_both_ends():
    def drawn(kind, returning):
        return SyntheticClips(shares={kind: 1.0}, size=32, num_frames=4, returning=returning).draw(0)

    assert drawn("pan left", 1.0).between_ends
    assert drawn("dissolve", 0.0).between_ends
    assert not drawn("pan left", 0.0).between_ends


def test_motion_numbers_lie_between_those_asked_for() -> None:
    stream = SyntheticClips(shares={"pan left": 1.0}, size=32, num_frames=2, motion_numbers=(4.0, 5.0))
    numbers = [stream.draw(position).motion for position in range(20)]
    assert 4 <= min(numbers) < max(numbers) <= 5


def test_pictures_of_a_folder_are_shown_too_and_no_larger_than_needed(tmp_path):
    blue = Image.new("RGB", (1280, 960), (10, 20, 250))
    blue.save(tmp_path / "blue.png")
    (tmp_path / "notes.txt").write_text("no picture")
    [photo] = photos_in(tmp_path)
    assert photo.shape == (640, 853, 3)
    rng = np.random.default_rng(0)
    crops = [photo_crop(rng, 32, tmp_path) for _ in range(40)]
    blues = sum(np.abs(crop.astype(int) - (10, 20, 250)).max() <= 1 for crop in crops)
    assert 20 <= blues < 40  # three in four


@pytest.mark.parametrize(("name", "said"), [("gone", "must be a folder of pictures"), ("", "holds no pictures")])
def test_a_folder_without_pictures_is_refused(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        photos_in(tmp_path / name)


def test_clips_say_where_their_frames_look():
    sample = SyntheticClips(shares={"pan left": 1.0}, motion_numbers=(12.0, 12.0)).draw(0)
    assert sample.looks.shape == (2, 16, 2, 16, 16)
    assert torch.allclose(sample.looks[0, :, 0, 0, 0], -16 / 12 * torch.arange(16.0), atol=1e-4)
    assert torch.allclose(sample.looks[1, 15], torch.zeros(2, 16, 16))
    still = SyntheticClips(shares={"darken": 1.0}).draw(0)
    assert still.looks.abs().max() == 0
