"""How the page is served, and what its visitors may ask for. Importable without gradio and torch."""

from __future__ import annotations

import hmac
import ipaddress
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from dynamicrafter.errors import InputError

AUTH_VARIABLE = "DYNAMICRAFTER_AUTH"
_LEAST_PASSWORD = 8  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the page is served, to whom, and within which limits."""

    host: str = "127.0.0.1"
    """Address to listen on; one that other machines can reach, such as 0.0.0.0, wants --auth-file or --open."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    auth: tuple[str, ...] = ()
    """Who may log in, as USER:PASSWORD; other users of this machine can see it in the list of processes, so rather
    use --auth-file, or the variable DYNAMICRAFTER_AUTH."""
    auth_file: Path | None = None
    """File with a USER:PASSWORD on each line."""
    open: bool = False
    """Let everybody who reaches the page use it, without a login."""
    domain: tuple[str, ...] = ()
    """Name under which a reverse proxy on this machine serves the page, such as video.example.org."""
    root_path: str = ""
    """Path under which a reverse proxy serves the page, such as /video."""
    max_upload: int = 20
    """Largest picture that may be sent, in megabytes."""
    max_megapixels: int = 50
    """Largest picture that may be sent, in megapixels."""
    max_size: int = 1024 * 576
    """Most pixels that a frame may have, width times height."""
    max_steps: int = 100
    """Most denoising steps that may be asked for."""
    max_frames: int = 128
    """Most frames that may be asked for."""
    max_waiting: int = 100
    """Most clips that may wait in the queue."""
    max_waiting_each: int = 10
    """Most clips that one visitor may have in the queue."""
    max_results: int = 24
    """Clips that are kept for each visitor; the oldest goes when one more is made."""
    keep_hours: float = 24.0
    """How long clips and uploaded pictures are kept, in hours."""
    no_downloads: bool = False
    """Don't let visitors fetch the published models (10 GB each)."""

    def check(self) -> None:
        """Raises InputError where a setting breaks its rule."""
        if not 0 <= self.port <= 65535:
            raise InputError(f"port must be between 0 and 65535, got {self.port}; try 7860.")
        for name in (
            "max_upload", "max_megapixels", "max_size", "max_steps", "max_frames", "max_waiting", "max_waiting_each",
            "max_results",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.keep_hours > 0:
            raise InputError(f"keep_hours must be more than 0, got {self.keep_hours}; try 24.")
        if self.root_path and not (self.root_path.startswith("/") and not self.root_path.endswith("/")):
            raise InputError(f"root_path must begin with a slash and not end with one, got {self.root_path!r}.")

    @property
    def most(self) -> dict[str, int]:
        """The highest values of options that are taken here, by their names."""
        return {"steps": self.max_steps, "frames": self.max_frames}

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the page."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Users:
    """Who may log in. Holds the passwords only as long as the server runs, and shows them to nobody."""

    def __init__(self, passwords: dict[str, str]) -> None:
        self._passwords = passwords

    def __bool__(self) -> bool:
        return bool(self._passwords)

    def knows(self, user: str, password: str) -> bool:
        """Compare in a time that tells nothing of how much was right."""
        kept = self._passwords.get(user)
        right = hmac.compare_digest((kept or "").encode(), password.encode(errors="surrogatepass"))
        return right and kept is not None


def read_users(settings: ServerSettings) -> Users:
    """Collect the users of --auth, of --auth-file and of the environment variable.

    Raises:
        InputError: a file that can't be read or that others can read, an entry that is not USER:PASSWORD, a short
            password, or nobody where other machines can reach the page and `open` doesn't say that this is meant.
    """
    passwords: dict[str, str] = {}
    entries = [("--auth", entry) for entry in settings.auth]
    if settings.auth_file is not None:
        try:
            with settings.auth_file.open(encoding="utf-8") as file:
                _check_private(file.fileno(), settings.auth_file)
                lines = file.read().splitlines()
        except InputError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise InputError(f"auth_file {settings.auth_file} can't be read ({reason}); check the path.") from None
        entries += [(f"{settings.auth_file}, line {number}", line) for number, line in enumerate(lines, 1) if line]
        if not entries:
            raise InputError(f"auth_file {settings.auth_file} is empty; write USER:PASSWORD into it, one a line.")
    if os.environ.get(AUTH_VARIABLE):
        entries.append((AUTH_VARIABLE, os.environ[AUTH_VARIABLE]))
    for source, entry in entries:
        user, colon, password = entry.partition(":")
        if not (colon and user.strip()):  # the entry itself may be a password: it is not repeated
            raise InputError(f"{source} must be USER:PASSWORD; write a name, a colon and a password.")
        if len(password) < _LEAST_PASSWORD:
            raise InputError(f"{source}: the password of {user} must have at least {_LEAST_PASSWORD} characters.")
        passwords[user.strip()] = password
    if not (passwords or settings.is_local or settings.open):
        raise InputError(
            f"host {settings.host} lets other machines use the page, and nobody is named who may log in; name users in "
            f"--auth-file FILE, or say --open."
        )
    if passwords and settings.open:
        raise InputError("open lets everybody in, and users are named who log in; leave one of the two out.")
    return Users(passwords)


def _check_private(number: int, path: Path) -> None:
    """Raises InputError where others than its owner can read or change an open file; on Windows, modes say nothing."""
    mode = stat.S_IMODE(os.fstat(number).st_mode)
    if os.name == "posix" and mode & 0o066:
        raise InputError(
            f"auth_file {path} must be its owner's alone, got mode {mode:o}; run `chmod 600 {path}`, and choose new "
            f"passwords if others may have read it."
        )
