"""Whether a video file is all there: libav plays one that was cut short up to the cut, and says nothing."""

from __future__ import annotations

import io
from typing import BinaryIO

_EBML_HEADER, _SEGMENT = 0x1A45DFA3, 0x18538067


def is_cut_short(file: BinaryIO) -> bool:
    """Compare the size that an mp4, mov, mkv or webm claims with the size that it has.

    Args:
        file: an opened, seekable file of any kind; of other kinds nothing is known, and the answer is False.

    Source: ISO/IEC 14496-12 §4.2 (boxes), RFC 8794 §4 and RFC 9559 §5.1 (EBML elements).
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if int.from_bytes(file.read(4), "big") == _EBML_HEADER:
        return _segment_end(file) > size
    return _last_box_end(file, size) > size


def _last_box_end(file: BinaryIO, size: int) -> int:
    """Walk along the boxes that hold a movie's index and data; anything else may trail behind it as it likes."""
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: up to the end of the file; less: no box
            break
        if position + length > size and kind not in (b"moov", b"mdat", b"moof"):
            break
        position += length
    return position


def _segment_end(file: BinaryIO) -> int:
    """Where a Matroska file's segment claims to end; 0 if it does not say, as in a live stream."""
    file.seek(4)
    header_length = _number(file)
    file.seek(header_length or 0, io.SEEK_CUR)
    if int.from_bytes(file.read(4), "big") != _SEGMENT:
        return 0
    length = _number(file)
    return 0 if length is None else file.tell() + length


def _number(file: BinaryIO) -> int | None:
    """Read an EBML number: the zeros before its first one tell how many bytes follow; all ones mean unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    num_more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] ^ (0x80 >> num_more)]) + file.read(num_more), "big")
    return None if value == (1 << (7 * (num_more + 1))) - 1 else value
