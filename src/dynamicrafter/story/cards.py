"""Title cards: text in the middle of a colour or a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from dynamicrafter.errors import InputError
from dynamicrafter.media.framing import frame_picture
from dynamicrafter.media.pictures import read_picture

if TYPE_CHECKING:
    from dynamicrafter.media.fit import Fit

LONGEST_TITLE = 500  # characters
_WIDTH, _HEIGHT = 0.86, 0.8  # of the frame, that text may fill
_LARGEST, _SMALLEST = 0.16, 0.045  # height of letters, of the frame's height and of its shorter side
_LINE = 1.25  # distance of lines, in heights of letters


@dataclass(frozen=True, slots=True, kw_only=True)
class CardLook:
    """What stands on a card.

    Attributes:
        text: in one line or several; longer lines are broken.
        background: a colour, or the file of a picture.
        color: of the text.
        font: a file with the letters; None for Pillow's own, which has those of English.
        fit: how a picture of another shape fills the card.
    """

    text: str
    background: str | Path = "black"
    color: str = "white"
    font: Path | None = None
    fit: Fit = "cover"


def check_color(color: str) -> None:
    """Raises InputError where text is no colour."""
    try:
        ImageColor.getrgb(color)
    except ValueError:
        raise InputError(f"colour {color!r} is unknown; write a name such as navy, or #102030.") from None


def check_letters(text: str, font: Path | None) -> None:
    """Raises InputError where a font can't be read, or lacks a letter of the text and would show a box for it."""
    if len(text) > LONGEST_TITLE:
        raise InputError(f"title must be at most {LONGEST_TITLE} characters, got {len(text)}; make two of it.")
    if not text.strip():
        raise InputError("title must not be empty; write what is to be read.")
    loaded = _load(font, 40)
    none = _shape(loaded, "\uffff")  # stands for no letter in any font
    lacking = "".join(dict.fromkeys(c for c in text if not c.isspace() and _shape(loaded, c) == none))
    if lacking:
        whose = "Pillow's own font" if font is None else str(font)
        raise InputError(f"title needs {lacking!r}, which {whose} lacks; name the file of a font that has it as font.")


def draw_card(look: CardLook, size: tuple[int, int]) -> np.ndarray:
    """Draw a card.

    Args:
        size: (height, width) in pixels.

    Returns:
        uint8 (height, width, 3).

    Raises:
        InputError: the picture or the font can't be read, or the text is too long to be legible at this size.
    """
    height, width = size
    if isinstance(look.background, Path):
        card = Image.fromarray(frame_picture(read_picture(look.background), size, fit=look.fit))
    else:
        card = Image.new("RGB", (width, height), look.background)
    font, text = _fitted(look, size)
    letters = font.size
    # On a picture, an edge keeps letters legible on any ground.
    edge = max(1, round(letters / 14)) if isinstance(look.background, Path) else 0
    ImageDraw.Draw(card).multiline_text(
        (width / 2, height / 2),
        text,
        fill=look.color,
        font=font,
        anchor="mm",
        align="center",
        spacing=(_LINE - 1) * letters,
        stroke_width=edge,
        stroke_fill=_opposite(look.color),
    )
    return np.array(card)


def _fitted(look: CardLook, size: tuple[int, int]) -> tuple[ImageFont.FreeTypeFont, str]:
    """The largest letters with which the text fits, and the text broken into lines."""
    height, width = size
    for letters in range(int(_LARGEST * height), max(int(_SMALLEST * min(size)), 7) - 1, -1):
        font = _load(look.font, letters)
        lines = [line for part in look.text.strip().splitlines() for line in _broken(part, font, _WIDTH * width)]
        fits = all(font.getlength(line) <= _WIDTH * width for line in lines)
        if fits and len(lines) * letters * _LINE <= _HEIGHT * height:
            return font, "\n".join(lines)
    raise InputError(f"title of {len(look.text)} characters does not fit a card of {width}×{height}; shorten it.")


def _broken(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Break text between words, so that lines are no wider than `width` where that is possible."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _load(font: Path | None, letters: int) -> ImageFont.FreeTypeFont:
    if font is not None and not font.is_file():  # a device could be read for ever
        raise InputError(f"font {font} does not exist or is no file; name a .ttf or .otf file.")
    try:
        loaded = ImageFont.load_default(letters) if font is None else ImageFont.truetype(str(font), letters)
    except OSError as error:
        raise InputError(f"font {font} can't be read ({error}); name a .ttf or .otf file.") from error
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def _shape(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)  # pyrefly: ignore[bad-argument-type]


def _opposite(color: str) -> str:
    """Black or white, whichever stands out from a colour more."""
    red, green, blue = ImageColor.getrgb(color)[:3]
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 127 else "white"
