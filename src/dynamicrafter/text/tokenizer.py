"""CLIP's byte-pair encoding: prompts to the 77 token ids that the text encoder reads.

A prompt is cleaned, lower-cased and split into words; each word's UTF-8 bytes, written as printable symbols, are
merged pair by pair in the order of a fixed list. Source: arXiv:2103.00020, sec. 2.4; the list of merges is CLIP's.
"""

from __future__ import annotations

import html
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import accumulate
from typing import TYPE_CHECKING

import ftfy
import regex
from tokenizers.models import BPE

from dynamicrafter.architectures import TEXT_LENGTH
from dynamicrafter.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

START_TOKEN = 49406
END_TOKEN = 49407

_WORD_END = "</w>"
_LITERALS = {"<start_of_text>": START_TOKEN, "<end_of_text>": END_TOKEN}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedPrompts:
    """Token ids of some prompts, and what of each prompt did not fit.

    Attributes:
        ids: (b, length), int64: start, text, end, zeros.
        cut: per prompt, its own words from the first one that is not wholly among `ids`; None where all of it is.
    """

    ids: Tensor
    cut: tuple[str | None, ...]


def tokenize(prompts: Sequence[str], *, length: int = TEXT_LENGTH) -> TokenizedPrompts:
    """Turn prompts into token ids for the text encoder, keeping at most 75 tokens of each, or `length` − 2.

    Args:
        prompts: any text, empty or of any length; upper and lower case are the same.
        length: tokens that the text encoder reads, start and end among them; CLIP's own is 77.

    Raises:
        InputError: `prompts` is one string instead of a sequence of them, or holds something else than strings.
    """
    import torch

    if isinstance(prompts, str):
        raise InputError(f"prompts must be a list of strings, got the single string {prompts!r}; put it in a list.")
    rows, cut = [], []
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(f'prompts[{index}] must be a string, got {prompt!r}; for no prompt give "".')
        ids, rest = _encode(prompt, length)
        rows.append(ids)
        cut.append(rest)
    return TokenizedPrompts(ids=torch.tensor(rows, dtype=torch.int64).reshape(len(rows), length), cut=tuple(cut))


def _encode(prompt: str, length: int) -> tuple[list[int], str | None]:
    room = length - 2
    text = _clean(prompt)
    ids: list[int] = []
    for word in _word_pattern().finditer(text.lower()):
        ids += _word_ids(word.group())
        if len(ids) > room:
            rest = text[_position_before_lowering(text, word.start()) :]
            break
    else:
        rest = None
    row = [START_TOKEN, *ids[:room], END_TOKEN]
    return row + [0] * (length - len(row)), rest


def _clean(prompt: str) -> str:
    # Twice, as the published code does: people paste text that was escaped twice ("&amp;amp;").
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return regex.sub(r"\s+", " ", text).strip()


def _position_before_lowering(text: str, position: int) -> int:
    """Index of the character of `text` that stands at `position` of `text.lower()`, which may be longer ("İ")."""
    ends = list(accumulate(len(character.lower()) for character in text))
    return bisect_right(ends, position)


def _word_ids(word: str) -> list[int]:
    if word in _LITERALS:
        return [_LITERALS[word]]
    symbols = _byte_symbols()
    return [token.id for token in _merger().tokenize("".join(symbols[byte] for byte in word.encode()))]


@cache
def _word_pattern() -> regex.Pattern[str]:
    return regex.compile(r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")


@cache
def _byte_symbols() -> dict[int, str]:
    """A printable character for each byte, in the vocabulary's order: printable Latin-1 bytes stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@cache
def _merger() -> BPE:
    lines = resources.files("dynamicrafter.text").joinpath("clip_merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    symbols = list(_byte_symbols().values())
    vocabulary = [*symbols, *(symbol + _WORD_END for symbol in symbols), *(a + b for a, b in merges)]
    return BPE(
        vocab={token: index for index, token in enumerate(vocabulary)}, merges=merges, end_of_word_suffix=_WORD_END
    )
