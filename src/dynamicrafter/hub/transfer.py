"""Large files from the hub into its cache, going on where an earlier attempt stopped, however that one ended.

huggingface_hub gives each attempt a file of its own and forgets it. Here the unfinished file has a name that the next
attempt finds again; the finished one is left where the library looks for it, and the library does the rest.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynamicrafter.errors import ModelNotFoundError, OutputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transfer:
    """One version of one file, on its way from the hub to the cache."""

    what: str  # for messages
    file: str
    url: str
    etag: str
    size: int  # bytes
    lock: Path
    unfinished: Path
    finished: Path

    @property
    def arrived(self) -> int:
        return self.unfinished.stat().st_size if self.unfinished.exists() else 0


def transfer(repo: str, file: str) -> None:
    """Bring a file's content into the cache, so that `hf_hub_download` finds it there and has only to place it.

    Where the content is there already, or the hub tells too little of it, nothing is done.

    Raises:
        ModelNotFoundError: what arrived is not what the hub announced; it is removed.
        OutputError: the disk has too little room.
        KeyboardInterrupt: of the user; its text says how much has arrived.
    """
    planned = _plan(repo, file)
    if planned is None:
        return
    planned.unfinished.parent.mkdir(parents=True, exist_ok=True)
    with _alone(planned):
        if planned.finished.exists():
            return
        _remove_useless(planned)
        _check_room(planned)
        try:
            _receive(planned)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped with {_bytes(planned.arrived)} of {_bytes(planned.size)} here; run it again to go on where "
                f"it stopped"
            ) from None
        _check_content(planned)
        planned.finished.parent.mkdir(parents=True, exist_ok=True)
        planned.unfinished.replace(planned.finished)


def _plan(repo: str, file: str) -> _Transfer | None:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, repo_folder_name

    known = hf_hub_download(repo, file, dry_run=True)
    if not known.will_download:
        return None
    # Of a commit rather than a branch: what arrives in parts must not change between them.
    url = hf_hub_url(repo, file, revision=known.commit_hash)
    metadata = get_hf_file_metadata(url)
    if metadata.etag is None or metadata.size is None:
        return None
    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    blob = cache / folder / "blobs" / metadata.etag
    return _Transfer(
        what=f"{file} of {repo}",
        file=file,
        url=url,
        etag=metadata.etag,
        size=metadata.size,
        lock=cache / ".locks" / folder / f"{metadata.etag}.lock",  # the library's own lock on that blob
        # The library's pattern, its random part replaced by one that tells the file: `hf cache prune` knows it.
        unfinished=blob.with_name(f"{metadata.etag}.{_mark(file)}.incomplete"),
        # Without links, the library would copy a blob and keep both.
        finished=blob if are_symlinks_supported(cache) else Path(known.local_path),
    )


def _mark(file: str) -> str:
    return hashlib.sha256(file.encode()).hexdigest()[:8]


@contextmanager
def _alone(planned: _Transfer) -> Iterator[None]:
    """Hold the lock on a blob; a process that is killed lets go of it."""
    from huggingface_hub.utils import WeakFileLock

    planned.lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(planned.lock, timeout=0.1))
        except TimeoutError:
            logger.warning("another program is downloading %s; waiting for it.", planned.what)
            stack.enter_context(WeakFileLock(planned.lock))
        yield


def _remove_useless(planned: _Transfer) -> None:
    """Remove what an earlier attempt left and this one can't go on with."""
    for path in planned.unfinished.parent.glob(f"*.{_mark(planned.file)}.incomplete"):
        if path != planned.unfinished:
            reason = "has changed on the hub"
        elif planned.arrived > planned.size:
            reason = "is shorter than what has arrived"
        else:
            continue
        size = _bytes(path.stat().st_size)
        path.unlink()
        logger.warning(
            "%s %s; the %s of an earlier attempt are removed, and it begins anew.", planned.what, reason, size
        )


def _check_room(planned: _Transfer) -> None:
    free = shutil.disk_usage(planned.unfinished.parent).free
    needed = planned.size - planned.arrived
    if free < needed:
        raise OutputError(
            f"{planned.what} needs {_bytes(needed)} more on the disk of {planned.unfinished.parent}, which has "
            f"{_bytes(free)}; make room, or set HF_HOME to a folder on another disk."
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _receive(planned: _Transfer) -> None:
    """Append what is missing; a line that breaks is taken up again as long as each time something arrives."""
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    # Some servers answer a request for a range with the whole, where they may compress.
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    while True:
        before = planned.arrived
        try:
            with planned.unfinished.open("ab") as content:
                http_get(
                    planned.url,
                    content,
                    resume_size=before,
                    headers=headers,
                    expected_size=planned.size,
                    displayed_filename=planned.file,
                )
            return
        except HTTPError:
            if planned.arrived <= before:
                raise


def _check_content(planned: _Transfer) -> None:
    """Compare with the etag, which is the sha256 of whatever the hub keeps as a large file."""
    if not re.fullmatch("[0-9a-f]{64}", planned.etag):
        return
    with planned.unfinished.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != planned.etag:
        planned.unfinished.unlink()
        raise ModelNotFoundError(
            f"{planned.what} arrived damaged (its sha256 begins {found[:8]}, not {planned.etag[:8]}) and is removed; "
            f"run it again to download it anew."
        )


def _bytes(count: int) -> str:
    from tqdm import tqdm

    return tqdm.format_sizeof(count, "B")
