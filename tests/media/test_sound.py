"""The sound of a film is as long as the film, whatever file it comes from."""

from fractions import Fraction

import av
import numpy as np
import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.media.film import write_film
from dynamicrafter.media.sound import SAMPLE_RATE, check_sound, num_samples_of, sound_of
from dynamicrafter.media.video import read_clip, read_metadata
from stories import write_tone


def heard(path, num_samples):
    return np.concatenate([frame.to_ndarray() for frame in sound_of(path, num_samples=num_samples)], axis=1)


@pytest.mark.parametrize("num_samples", [1, 1024, 47_999, 48_000, 150_001])
def test_sound_is_cut_or_padded_to_the_sample(tmp_path, num_samples):
    tone = write_tone(tmp_path / "tone.wav", seconds=2)
    samples = heard(tone, num_samples)
    assert samples.shape == (2, num_samples)
    ends = 2 * SAMPLE_RATE
    assert num_samples < 2000 or np.abs(samples[:, 1000:ends]).max() > 0.3
    assert not samples[:, ends + 100 :].any()


def test_sound_keeps_its_pitch_through_another_sample_rate(tmp_path):
    samples = heard(write_tone(tmp_path / "tone.wav", seconds=1, rate=11_025), SAMPLE_RATE)
    spectrum = np.abs(np.fft.rfft(samples[0]))
    assert abs(int(spectrum.argmax()) - 440) <= 1  # bins of 1 Hz


def test_a_films_sound_is_aac_of_the_films_length_and_in_step_with_it(tmp_path):
    tone = write_tone(tmp_path / "tone.wav", seconds=1)
    fps, num_frames = Fraction(24000, 1001), 60
    frames = (np.full((64, 64, 3), 4 * index, np.uint8) for index in range(num_frames))
    film = tmp_path / "film.mp4"
    write_film(film, frames, num_frames=num_frames, size=(64, 64), fps=fps, metadata={"a": 1}, sound=tone)
    pixels, rate = read_clip(film)
    assert (len(pixels), rate) == (num_frames, fps)
    assert np.abs(pixels.mean((1, 2, 3)) - 4 * np.arange(num_frames)).max() < 3
    assert read_metadata(film) == {"a": 1}
    with av.open(str(film)) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name == "aac"
        assert float(track.duration * track.time_base) == pytest.approx(float(num_frames / fps), abs=0.001)
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(track)], axis=1)
    loud = np.abs(samples[0]) > 0.1
    assert loud[:500].any()
    assert abs(int(np.flatnonzero(loud)[-1]) - SAMPLE_RATE) < 600  # AAC smears a few hundred samples
    assert num_samples_of(num_frames, fps) <= samples.shape[1] < num_samples_of(num_frames, fps) + 1024


def test_what_has_no_sound_is_refused(tmp_path):
    silent = tmp_path / "silent.mp4"
    frames = iter(np.zeros((2, 64, 64, 3), np.uint8))
    write_film(silent, frames, num_frames=2, size=(64, 64), fps=Fraction(8), metadata={})
    text = tmp_path / "notes.txt"
    text.write_text("la la la")
    for path, said in (
        (silent, "holds no sound"),
        (text, "is no sound that can be read here"),
        (tmp_path / "gone.wav", "does not exist"),
    ):
        with pytest.raises(InputError, match=said):
            check_sound(path)


def test_a_list_that_names_other_files_is_not_followed(tmp_path):
    write_tone(tmp_path / "tone.wav", seconds=1)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ntone.wav\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match="is no sound that can be read here"):
        check_sound(playlist)
