"""What the server's log says of its callers: visits, addresses, logins, refusals and tasks.

It names no cookie, password, prompt or picture. A visit stands there by a digest, which opens nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

logger = logging.getLogger("dynamicrafter.ui")

_LONGEST = 200  # characters of what a caller sent

caller: ContextVar[str] = ContextVar("caller", default="nobody in particular")
"""Visit and address of the request that is answered now."""


def words_for(owner: str, client: tuple[str, int] | None) -> str:
    """An owner and an address, as the log has them."""
    return f"{pseudonym(owner)} from {client[0] if client else 'an unknown address'}"


def pseudonym(owner: str) -> str:
    """A name for an owner that tells apart, and does not let in."""
    kind, _, secret = owner.partition(" ")
    return f"{kind} {hashlib.sha256(secret.encode()).hexdigest()[:10]}" if secret else "no visit"


def said(text: str) -> None:
    """Log something that the present caller does."""
    logger.info("%s: %s", caller.get(), text)


def asked(task: str, what: str, owner: str, client: tuple[str, int] | None) -> None:
    """Log that a task came; what becomes of it is logged under its number."""
    logger.info("%s: task %s, %s", words_for(owner, client), task, what)


def refused(what: str, reason: str) -> None:
    """Log what the present caller did not get; what it sent itself is cut and made harmless."""
    logger.info("%s: refused %s (%s)", caller.get(), harmless(what), harmless(reason))


def harmless(text: str) -> str:
    """A caller's text, cut, and without what could forge a line or steer a terminal."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in cut)


@contextmanager
def shown() -> Iterator[None]:
    """Within, the log goes to stderr, each line with the time; a task's failure with all that is known of it."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S%z"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
