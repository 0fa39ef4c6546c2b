"""Finished clips on disk, whose they are, and for how long.

A clip is kept without loss, and as mp4 to be played; other formats are written when somebody asks for them. Names are
drawn at random, and only their owner is given what they stand for.
"""

from __future__ import annotations

import hmac
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dynamicrafter.errors import InputError
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.ui.requests import ClipRequest, Upload

if TYPE_CHECKING:
    from dynamicrafter.animator.clip import Clip

LOSSLESS = "npy"
PLAYED = "mp4"
_LONGEST_NAME = 40  # characters


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """A finished clip.

    Attributes:
        token: its unguessable name.
        owner: who may see it.
        request: as it was made, its pictures copied to `folder` and no longer in memory.
        metadata: of the clip.
        seconds: that it took.
        notes: warnings, in words.
        name: for the files that are downloaded, without extension.
        made: when, by the store's clock.
    """

    token: str
    owner: str
    request: ClipRequest
    metadata: dict
    seconds: float
    notes: tuple[str, ...]
    name: str
    folder: Path
    made: float
    lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, format: str) -> Path:  # noqa: A002 the word that users know
        """The clip in a format; written now where nobody asked for it before.

        Args:
            format: one of `FORMATS`; png is a zip archive of the frames.

        Raises:
            InputError: no such format, or it can't hold the clip.
        """
        if format not in FORMATS:
            raise InputError(f"format must be one of {', '.join(FORMATS)}, got {format[:20]!r}.")
        suffix = "zip" if format == "png" else format
        path = self.folder / f"clip.{suffix}"
        with self.lock:
            if not path.exists():
                if format == "png":
                    self._zip(path)
                else:
                    self._clip().save(path)
        return path

    def _clip(self) -> Clip:
        from dynamicrafter.animator.clip import Clip
        from dynamicrafter.media.video import read_clip

        frames, fps = read_clip(self.folder / f"clip.{LOSSLESS}")
        return Clip(frames, fps, self.metadata)

    def _zip(self, path: Path) -> None:
        frames, aside = self.folder / "frames", self.folder / "frames.part"
        self._clip().save(frames)
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:  # PNGs don't shrink further
            for file in sorted(frames.iterdir()):
                archive.write(file, f"{self.name}/{file.name}")
        shutil.rmtree(frames)
        aside.replace(path)


class ResultStore:
    """All results of all visitors.

    Args:
        folder: of the store's own; results are folders in it.
        most_each: results kept for one owner.
        keep: seconds after which a result goes.
        clock: seconds that only grow.
    """

    def __init__(
        self, folder: Path, *, most_each: int, keep: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.clock = folder, clock
        self._most_each, self._keep = most_each, keep
        self._results: dict[str, Result] = {}
        self._lock = threading.Lock()

    def add(self, clip: Clip, request: ClipRequest, *, owner: str, seconds: float, notes: list[str]) -> Result:
        """Write a clip and copies of its pictures; the owner's oldest ones make room."""
        clip = replace(clip, fps=request.fps or clip.fps)
        token = secrets.token_urlsafe(24)
        folder = self.folder / token
        folder.mkdir(parents=True)
        try:
            clip.save(folder / f"clip.{LOSSLESS}")
            clip.save(folder / f"clip.{PLAYED}")
            uploads = tuple(_copied(upload, folder, place) for place, upload in enumerate(request.uploads))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        spec = replace(request.spec, pictures=tuple(upload.path for upload in uploads))
        result = Result(
            token=token,
            owner=owner,
            request=replace(request, uploads=uploads, work=None, spec=spec),
            metadata=clip.metadata,
            seconds=seconds,
            notes=tuple(notes),
            name=_file_name(request),
            folder=folder,
            made=self.clock(),
        )
        with self._lock:
            self._results[token] = result
            theirs = [kept for kept in self._results.values() if kept.owner == owner]
        for old in theirs[: -self._most_each]:
            self._drop(old)
        return result

    def of(self, owner: str) -> list[Result]:
        """An owner's results, the newest first."""
        with self._lock:
            return [result for result in reversed(self._results.values()) if result.owner == owner]

    def find(self, token: str, owner: str) -> Result | None:
        """A result by its name, for its owner alone."""
        result = self._results.get(token)
        return result if result is not None and hmac.compare_digest(result.owner, owner) else None

    def remove(self, token: str, owner: str) -> None:
        """Drop a result of this owner's; nothing where there is none."""
        result = self.find(token, owner)
        if result is not None:
            self._drop(result)

    def sweep(self) -> None:
        """Drop what is too old."""
        with self._lock:
            old = [result for result in self._results.values() if self.clock() - result.made > self._keep]
        for result in old:
            self._drop(result)

    def __len__(self) -> int:
        return len(self._results)

    def _drop(self, result: Result) -> None:
        with self._lock:
            self._results.pop(result.token, None)
        with result.lock:
            shutil.rmtree(result.folder, ignore_errors=True)


def _copied(upload: Upload, folder: Path, place: int) -> Upload:
    suffix = upload.path.suffix if re.fullmatch(r"\.\w{1,5}", upload.path.suffix) else ""
    copy = folder / f"picture-{place}{suffix}"
    shutil.copyfile(upload.path, copy)
    return replace(upload, path=copy)


def _file_name(request: ClipRequest) -> str:
    """A name that any system takes, from what was asked for."""
    words = re.findall(r"[a-z0-9]+", request.prompt.lower()) or [request.tab]
    take = f"-{request.take}" if request.take > 1 else ""
    return f"{'-'.join(words)[:_LONGEST_NAME].strip('-')}-{request.spec.options.seed}{take}"


def sweep_files(folder: Path, *, older_than: float, keep: set[Path], now: float | None = None) -> None:
    """Remove files under a folder that nobody has touched for long, and folders that this leaves empty.

    Args:
        older_than: seconds.
        keep: files that stay.
        now: seconds since the epoch.
    """
    now = time.time() if now is None else now
    for path in _deepest_first(folder):
        with suppress(OSError):
            if path.is_dir():
                path.rmdir()  # refused while there is something in it
            elif path not in keep and now - path.stat().st_mtime > older_than:
                path.unlink()


def _deepest_first(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True)
