import numpy as np
import pytest

from dynamicrafter.errors import InputError
from dynamicrafter.media.contact_sheet import contact_sheet


def test_frames_lie_in_reading_order_on_white():
    frames = np.stack([np.full((10, 20, 3), 10 * i, np.uint8) for i in range(5)])
    sheet = np.asarray(contact_sheet(frames, columns=3))
    assert sheet.shape == (24, 68, 3)
    assert (sheet[:10, 24:44] == 10).all()
    assert (sheet[14:, :20] == 30).all()
    assert (sheet[14:, 48:] == 255).all(), "nothing in the sixth place"
    assert (sheet[10:14] == 255).all()


def test_a_short_clip_leaves_no_empty_columns():
    assert contact_sheet(np.zeros((2, 10, 20, 3), np.uint8), columns=8).size == (44, 10)


@pytest.mark.parametrize("frames", [np.zeros((10, 20, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)])
def test_what_is_no_clip_is_refused(frames):
    with pytest.raises(InputError, match=r"frames must be uint8 of shape \(f, h, w, 3\)"):
        contact_sheet(frames)


def test_no_columns_are_refused():
    with pytest.raises(InputError, match="columns must be a positive number of frames, got 0; try 4"):
        contact_sheet(np.zeros((2, 4, 4, 3), np.uint8), columns=0)
