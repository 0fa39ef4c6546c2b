"""Names of files in composed and decomposed letters, as Linux and macOS write them."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.reader import opened_clip
from dynamicrafter.data.sources import find_source, read_records
from dynamicrafter.files.names import as_stored
from dynamicrafter.jobs.folders import jobs_in_folder
from dynamicrafter.jobs.job import Defaults
from dynamicrafter.media.video import write_clip

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("picture", "text"), [(NFD, NFC), (NFC, NFD)])
def test_a_folder_s_pictures_find_their_prompts(tmp_path, picture, text):
    Image.new("RGB", (8, 8)).save(tmp_path / f"{picture}.png")
    (tmp_path / f"{text}.txt").write_text("a café")
    [job] = jobs_in_folder(tmp_path, Defaults())
    assert (job.clip.prompts[0], job.key) == ("a café", NFC)


@pytest.mark.parametrize(("clip", "text"), [(NFD, NFC), (NFC, NFD)])
def test_a_folder_s_clips_find_their_captions(tmp_path, clip, text):
    (tmp_path / f"{clip}.mp4").touch()
    (tmp_path / f"{text}.TXT").write_text("a café")
    config = DataConfig(path=tmp_path)
    assert [record.caption for record in read_records(find_source(config), config)] == ["a café"]


def test_a_clip_is_opened_by_the_name_that_a_list_gives_it(tmp_path):
    write_clip(tmp_path / f"{NFD}.mp4", np.zeros((4, 16, 16, 3), np.uint8), fps=8, metadata={})
    with opened_clip(tmp_path / f"{NFC}.mp4") as opened:
        assert opened.info.num_frames == 4


def test_what_is_there_as_it_is_written_is_left_alone_and_what_is_nowhere_too(tmp_path):
    for name in (NFC, NFD):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
        assert as_stored(tmp_path / name / name) == tmp_path / name / name
    assert as_stored(tmp_path / "naïve" / "x") == tmp_path / "naïve" / "x"
