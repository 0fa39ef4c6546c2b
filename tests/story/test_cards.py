"""Title cards show their text, whole and legible, in the middle of what is behind it."""

import numpy as np
import pytest
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.story.cards import CardLook, check_letters, draw_card


def inked(card, ground):
    """Rows and columns of the box around all that differs from the ground."""
    rows, columns = np.nonzero(np.abs(card.astype(int) - ground).max(-1) > 60)
    return rows.min(), rows.max(), columns.min(), columns.max()


@pytest.mark.parametrize("text", ["A", "Up and away", "one\ntwo\nthree", "a title of many words " * 6])
@pytest.mark.parametrize("size", [(64, 64), (128, 128), (320, 512), (512, 128)])
def test_text_stands_in_the_middle_and_within_the_card(text, size):
    if size == (64, 64) and len(text) > 40:
        with pytest.raises(InputError, match="does not fit a card"):
            draw_card(CardLook(text=text), size)
        return
    card = draw_card(CardLook(text=text, background="#102030", color="white"), size)
    assert card.shape == (*size, 3)
    assert card.dtype == np.uint8
    np.testing.assert_array_equal(card[0, 0], (0x10, 0x20, 0x30))
    top, bottom, left, right = inked(card, card[0, 0])
    height, width = size
    assert abs((left + right) / 2 - width / 2) < 0.06 * width
    assert abs((top + bottom) / 2 - height / 2) < 0.12 * height
    assert top > 0.05 * height
    assert bottom < 0.95 * height


def test_letters_shrink_for_longer_texts_and_grow_with_the_card():
    def height_of(text, size):
        top, bottom, *_ = inked(draw_card(CardLook(text=text), size), 0)
        return bottom - top

    assert height_of("A", (256, 256)) > 1.8 * height_of("A", (128, 128))
    wide = draw_card(CardLook(text="Wherever"), (128, 512))
    narrow = draw_card(CardLook(text="Wherever"), (128, 64))
    assert np.ptp(inked(wide, 0)[:2]) > np.ptp(inked(narrow, 0)[:2])


def test_a_picture_behind_the_text_fills_the_card_as_fit_says(tmp_path):
    path = tmp_path / "wide.png"
    pixels = np.zeros((64, 256, 3), np.uint8)
    pixels[:, :64], pixels[:, 192:] = (255, 0, 0), (0, 0, 255)  # red at the left end, blue at the right one
    Image.fromarray(pixels).save(path)
    covered = draw_card(CardLook(text="x", background=path, fit="cover"), (64, 64))
    stretched = draw_card(CardLook(text="x", background=path, fit="stretch"), (64, 64))
    assert not covered[0].any()
    np.testing.assert_array_equal(stretched[0, 2], (255, 0, 0))
    np.testing.assert_array_equal(stretched[0, -3], (0, 0, 255))


def test_letters_on_a_picture_have_an_edge_that_stands_out(tmp_path):
    path = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(path)
    assert draw_card(CardLook(text="x", background=path, color="white"), (64, 64)).min() < 50
    assert draw_card(CardLook(text="x", background="white", color="white"), (64, 64)).min() == 255


def test_letters_that_the_font_lacks_are_named():
    check_letters('Plain: it\'s (2026) "ok"…', None)
    with pytest.raises(InputError, match="title needs 'é中', which Pillow's own font lacks"):
        check_letters("déjà 中é".replace("à", "a"), None)


def test_a_text_too_long_to_be_legible_is_refused():
    with pytest.raises(InputError, match="title of 499 characters does not fit a card of 64×64; shorten it"):
        draw_card(CardLook(text="word " * 99 + "word"), (64, 64))
    with pytest.raises(InputError, match="at most 500 characters, got 501"):
        check_letters("w" * 501, None)
