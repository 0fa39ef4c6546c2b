"""The Hugging Face hub and its cache on this machine, with one clear line for whatever goes wrong there."""

from __future__ import annotations

import errno
import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynamicrafter.errors import InputError, ModelNotFoundError, OutputError
from dynamicrafter.hub.folders import PIPELINE_INDEX, is_complete_pipeline
from dynamicrafter.hub.transfer import transfer

_PIPELINE_WEIGHTS = "*/*.safetensors"
_PIPELINE_FILES = [PIPELINE_INDEX, "*/*.json", "*/*.txt", _PIPELINE_WEIGHTS]


def check_repository(repo: str, file: str = "") -> None:
    """Refuse what can't be a repository on the hub, or a file inside it.

    Raises:
        InputError: see there; the file's name goes into a path in the cache, so no part of it may lead out again.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(
            f"model {repo[:100]} can be no repository on the hub, which is user/name of at most 96 letters, digits and "
            f"single '-', '_' or '.'; check the name."
        ) from error
    if file and any(part in ("", ".", "..") or ":" in part or "\\" in part for part in file.split("/")):
        raise InputError(
            f"model {repo}/{file} must name a file inside {repo}: no '.', '..', colon or backslash in its path."
        )


def cached(repo: str, file: str) -> Path | None:
    """A file of a repository in the cache; touches no network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file)
    return Path(path) if isinstance(path, str) else None


def cached_snapshot(repo: str) -> Path | None:
    """The folder of a repository in the cache, unless it is an incomplete pipeline; touches no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, local_files_only=True, allow_patterns=_PIPELINE_FILES))
    except LocalEntryNotFoundError:
        return None
    return folder if not (folder / PIPELINE_INDEX).exists() or is_complete_pipeline(folder) else None


def remote_files(repo: str) -> list[str]:
    """The files of a repository on the hub, sorted.

    Raises:
        ModelNotFoundError: no network, or no such repository.
    """
    from huggingface_hub import HfApi

    with _one_line(repo, "the list of files"):
        return sorted(HfApi().list_repo_files(repo))


def fetch(repo: str, file: str) -> Path:
    """Download one file into the cache, going on where an earlier attempt stopped.

    Raises:
        ModelNotFoundError: no network, no such file, or it arrived damaged.
        OutputError: the disk is full or the cache can't be written.
    """
    from huggingface_hub import hf_hub_download

    with _one_line(repo, file):
        transfer(repo, file)
        return Path(hf_hub_download(repo, file))


def fetch_pipeline(repo: str, files: list[str]) -> Path:
    """Download a pipeline's folder into the cache: its settings and safetensors files only.

    Args:
        files: those of the repository, by which the weights are found that take long.

    Raises:
        ModelNotFoundError, OutputError: see `fetch`.
    """
    from huggingface_hub import snapshot_download

    for file in fnmatch.filter(files, _PIPELINE_WEIGHTS):
        with _one_line(repo, file):
            transfer(repo, file)
    with _one_line(repo, "the pipeline"):
        return Path(snapshot_download(repo, allow_patterns=_PIPELINE_FILES))


def unfinished_bytes(repo: str) -> int:
    """How much unfinished downloads of a repository have brought to the cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    return sum(path.stat().st_size for path in blobs.glob("*.incomplete"))


@contextmanager
def _one_line(repo: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        told = _retold(error, repo, what)
        if told is None:
            raise
        raise told from error


def _retold(error: Exception, repo: str, what: str) -> InputError | None:
    """One line with a remedy for an error of the hub's library; None for one that is nobody's but ours."""
    from huggingface_hub import constants, errors

    reason = _first_line(error.__cause__ or error)
    match error:
        case errors.GatedRepoError():
            return ModelNotFoundError(
                f"{repo} is gated: accept its terms at https://huggingface.co/{repo} and log in with `hf auth login`."
            )
        case errors.RepositoryNotFoundError():
            return ModelNotFoundError(
                f"the hub has no public repository {repo}; check the name, or log in with `hf auth login`."
            )
        case errors.RemoteEntryNotFoundError():
            return ModelNotFoundError(
                f"{repo} has no file {what}; see https://huggingface.co/{repo}/tree/main for those that it has."
            )
        case errors.OfflineModeIsEnabled() | errors.LocalEntryNotFoundError() if constants.HF_HUB_OFFLINE:
            return ModelNotFoundError(
                f"{what} of {repo} is not on this machine, and HF_HUB_OFFLINE forbids downloads; unset it."
            )
        case _ if _is_disk_full(error):
            return OutputError(
                f"the disk is full while downloading {what} of {repo} to {constants.HF_HUB_CACHE}; make room, or set "
                f"HF_HOME to a folder on another disk, and run it again."
            )
        case PermissionError() | IsADirectoryError() | NotADirectoryError() | FileExistsError():
            return OutputError(
                f"the Hugging Face cache {constants.HF_HUB_CACHE} can't be written ({reason}); set HF_HOME to another "
                f"folder."
            )
        case OSError() | RuntimeError() | errors.HTTPError():
            return ModelNotFoundError(
                f"{what} of {repo} could not be downloaded ({reason}); check the connection and run it again; what "
                f"has arrived is kept."
            )
    return None


def _is_disk_full(error: Exception) -> bool:
    # hf_xet, which does the transfer where it is installed, hands the system's error on as a text.
    full = os.strerror(errno.ENOSPC)
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or full in str(error)


def _first_line(error: BaseException) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
