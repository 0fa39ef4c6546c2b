"""Files that visitors sent or were given, and whose they are.

A browser names its files by their places on the server. Such a name is taken for nothing but a key into what this
server wrote itself: no other name leads to a look at the disk, so that no answer depends on what is there.
"""

from __future__ import annotations

import secrets
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PUBLIC = "everybody"

NOT_YOURS = "picture must be a file that you sent in this visit and that is still kept; choose it again."
"""All that is said of a file that is not the caller's, whatever and wherever it is."""

_OF_FILES = frozenset({"path", "url", "meta"})  # what stands for a file has one of these keys, for Gradio and for us


class Uploads:
    """The folder of uploads.

    Args:
        folder: of this server's own, made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._owners: dict[str, set[str]] = {}
        self._lock = threading.Lock()

    def give(self, paths: Iterable[str | Path], owner: str) -> None:
        """Note that files in the folder are an owner's too; `PUBLIC` makes them everybody's."""
        with self._lock:
            for path in paths:
                self._owners.setdefault(str(path), set()).add(owner)

    def add_copy(self, source: Path, owner: str, *, name: str) -> Path:
        """Copy a file into the folder, under an unguessable name and for one owner."""
        folder = self.folder / secrets.token_urlsafe(24)
        folder.mkdir()
        shutil.copyfile(source, folder / name)
        self.give([folder / name], owner)
        return folder / name

    def find(self, name: object, owner: str) -> Path | None:
        """The file that an owner means.

        Args:
            name: anything at all. It is compared with the places of the owner's files, letter by letter.
            owner: "" for a caller who is nobody in particular.

        Returns:
            A plain file in the folder; None where it is not the owner's or no longer there.
        """
        owners = self._owners.get(name, set()) if isinstance(name, str) else set()
        if PUBLIC not in owners and not (owner and owner in owners):
            return None
        path = Path(str(name))
        try:  # the folder is this server's own, and nobody else should have put a link into it
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if real == path and real.is_relative_to(self.folder) and real.is_file() else None

    def with_files_of(self, owner: str, value: Any) -> tuple[Any, list[Any]]:
        """A message with the owner's own files in it, and an empty place where another file is named.

        Addresses and everything by which Gradio knows a file are left out, so that it looks at none itself.

        Args:
            value: of JSON.

        Returns:
            The message, and the names that were not the owner's.
        """
        refused: list[Any] = []

        def kept(value: Any) -> Any:
            if isinstance(value, list):
                return [kept(each) for each in value]
            if not isinstance(value, dict):
                return value
            if not value.keys() & _OF_FILES:
                return {name: kept(each) for name, each in value.items()}
            path = self.find(value.get("path"), owner)
            if path is None:
                refused.append(value.get("path") or value.get("url"))
                return {"path": ""}
            called = value.get("orig_name")
            return {"path": str(path), "orig_name": called if isinstance(called, str) else path.name}

        return kept(value), refused

    def forget_missing(self) -> None:
        """Drop the owners of files that are no longer there."""
        with self._lock:
            for path in [path for path in self._owners if not Path(path).exists()]:
                del self._owners[path]

    @property
    def public(self) -> set[Path]:
        """Everybody's files."""
        with self._lock:
            return {Path(path) for path, owners in self._owners.items() if PUBLIC in owners}
