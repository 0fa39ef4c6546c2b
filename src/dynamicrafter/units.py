"""Quantities as people write them."""

from __future__ import annotations

import re

from dynamicrafter.errors import InputError

FREE = "free"  # as a budget of memory: what other programs leave


def parse_memory(text: str) -> int:
    """Bytes of a size such as 24GB or 7.5GiB.

    Raises:
        InputError: written otherwise.
    """
    match = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*(GB|GiB|G)?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise InputError(f"memory must be a size such as 24GB, got {text!r}.")
    unit = 2**30 if (match[2] or "").lower() == "gib" else 10**9
    return int(float(match[1]) * unit)
