"""From a model's name to files on this machine; nothing is downloaded unasked.

A preset is looked for in the folder that DYNAMICRAFTER_MODELS names, then in the Hugging Face cache: the official
file, a complete pruned copy, and a pruned copy without encoders where the encoders are on this machine too.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from dynamicrafter.errors import InputError, ModelNotFoundError
from dynamicrafter.hub.folders import (
    BUNDLED_FOLDER,
    MODELS_VARIABLE,
    PIPELINE_INDEX,
    USUAL_FILES,
    LocalModel,
    bundled_model,
    existing,
    list_models_folder,
    local_model,
    models_folder,
    only_model,
    shortened,
)
from dynamicrafter.hub.names import SEEDED, WEIGHTS, preset_from_filename, preset_of_repository
from dynamicrafter.hub.remote import (
    cached,
    cached_snapshot,
    check_repository,
    fetch,
    fetch_pipeline,
    remote_files,
    unfinished_bytes,
)
from dynamicrafter.modes import Mode
from dynamicrafter.presets import (
    BUNDLED,
    ENCODER_REPO,
    PRESETS,
    PRUNED_COPIES,
    PRUNED_REPO,
    Preset,
    PrunedCopy,
    get_preset,
)

OFFICIAL_GB = 10.4
ENCODERS_GB = 3.9
ENCODER_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
)
__all__ = [
    "BUNDLED_FOLDER",
    "ENCODERS_GB",
    "MODELS_VARIABLE",
    "OFFICIAL_GB",
    "SEEDED",
    "LocalModel",
    "arrived",
    "best_local",
    "download",
    "find_encoders",
    "find_local",
    "list_models_folder",
    "preset_from_filename",
    "resolve",
]


def resolve(name: str, *, download: bool = False) -> LocalModel:
    """Find a model by any of its names.

    Args:
        name: a preset ("512"), "bundled" for the small model of the package, a folder, a file, a repository on the hub
            ("user/name"), or a file in one ("user/name/file"), in this order; "./512" is a folder where "512" is the
            preset.
        download: fetch what is not on this machine.

    Raises:
        ModelNotFoundError: not here and not asked for, or not to be had; the message says how.
        InputError: no possible name, or a folder or repository in which it is unclear what is meant.
        OutputError: a download can't be written.
    """
    preset = _preset_called(name)
    if preset is BUNDLED:
        return _bundled()
    if preset is not None:
        return find_local(preset.name) or _official(preset, download=download)
    path = existing(name)
    if path is not None:
        return local_model(path)
    if not name.strip() or not name.isprintable():
        raise InputError(f"model must be a preset, a path or a repository on the hub, got {name!r}; try 512.")
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    if name.startswith((".", "/", "~")) or "\\" in name or (not file and name.endswith(WEIGHTS)):
        raise ModelNotFoundError(f"model {name} is a path to nothing; check the path.")
    if not rest:
        raise ModelNotFoundError(
            f"model {name} is neither a preset ({', '.join(PRESETS)}), nor a file or folder here, nor a repository "
            f"on the hub (user/name); check the name."
        )
    return _in_repository(f"{owner}/{repo}", file, download=download)


def find_local(name: str) -> LocalModel | None:
    """The weights of a preset that are on this machine, if any; touches no network.

    Raises:
        InputError: no such preset, or DYNAMICRAFTER_MODELS names no folder.
    """
    preset = get_preset(name)
    if preset is BUNDLED:
        return bundled_model()
    listed = [model for model in list_models_folder() if model.preset == preset.name and _is_usable(model.path)]
    if listed:
        return min(listed, key=_rank)
    places = [(preset.repo, preset.file), *((PRUNED_REPO, copy.file) for copy in _copies(preset))]
    paths = [path for repo, file in places if (path := cached(repo, file)) is not None and _is_usable(path)]
    return LocalModel(path=paths[0], kind="file", preset=preset.name) if paths else None


def best_local(mode: Mode) -> LocalModel:
    """The largest trained model on this machine that was made for a mode; where there is none, the package's own.

    Raises:
        InputError: DYNAMICRAFTER_MODELS names no folder.
        ModelNotFoundError: none is there, and the package's own was not made for that mode.
    """
    made_for_it = [preset for preset in PRESETS.values() if mode in preset.modes]
    largest_first = sorted(made_for_it, key=lambda preset: -preset.height * preset.width)
    found = (model for preset in largest_first if (model := find_local(preset.name)) is not None)
    best = next(found, None)
    if best is not None:
        return best
    if mode in BUNDLED.modes:
        return LocalModel(path=BUNDLED_FOLDER, kind="folder", preset=BUNDLED.name)
    names = [preset.called for preset in made_for_it]
    raise ModelNotFoundError(
        f"no model for mode {mode} is on this machine ({', '.join(names)}); fetch one: dynamicrafter download "
        f"{names[0]}."
    )


def download(name: str, *, source: Literal["official", "pruned"] = "official") -> Path:
    """Fetch a preset's weights into the Hugging Face cache.

    An interrupted download goes on where it stopped, in whatever way it was interrupted.

    Args:
        name: a preset.
        source: "official" is the published float32 file (10.4 GB); "pruned" is the half-precision community copy, with
            encoders (5.2 GB), or without, and then they are fetched as well (3.1 + 3.9 GB).

    Raises:
        ModelNotFoundError: no network, no such file on the hub, or it arrived damaged.
        OutputError: the disk is full or the cache can't be written.
        InputError: no such preset, or no pruned copy of it.
    """
    preset = get_preset(name)
    if preset is BUNDLED:
        raise InputError("preset bundled comes with the package; there is nothing to download.")
    if source == "official":
        return fetch(preset.repo, preset.file)
    copies = _copies(preset)
    if not copies:
        raise InputError(f"source pruned does not exist for preset {preset.name}; use the official file.")
    if not copies[0].has_encoders:
        find_encoders(None, download=True)
    return fetch(PRUNED_REPO, copies[0].file)


def arrived(name: str) -> int:
    """Bytes of a preset's published file that an unfinished download has brought; 0 where there is none.

    Raises:
        InputError: no such preset.
    """
    return unfinished_bytes(get_preset(name).repo)


def find_encoders(place: str | None, *, download: bool = False) -> Path:
    """Find the weights of the text and image encoders, for a checkpoint without them.

    Args:
        place: a file, or a folder with one; None looks into DYNAMICRAFTER_MODELS and the Hugging Face cache.
        download: fetch them (3.9 GB) where they are not on this machine and no place was named.

    Raises:
        ModelNotFoundError: not there, or not to be had.
        OutputError: a download can't be written.
    """
    if place is not None:
        return _encoders_in(place)
    path = _encoders_here()
    if path is not None:
        return path
    if not download:
        raise ModelNotFoundError(
            f"the encoders ({ENCODER_REPO}, {ENCODERS_GB} GB) are not on this machine; pass --encoders FILE or "
            f"--download."
        )
    files = remote_files(ENCODER_REPO)
    file = next((known for known in ENCODER_FILES if known in files), None)
    if file is None:
        raise ModelNotFoundError(f"{ENCODER_REPO} holds none of {', '.join(ENCODER_FILES)}; pass --encoders FILE.")
    return fetch(ENCODER_REPO, file)


def _official(preset: Preset, *, download: bool) -> LocalModel:
    if not download:
        raise ModelNotFoundError(
            f'model {preset.name} is not on this machine; run "dynamicrafter download {preset.name}" '
            f"({OFFICIAL_GB} GB) or pass --download."
        )
    return LocalModel(path=fetch(preset.repo, preset.file), kind="file", preset=preset.name)


def _bundled() -> LocalModel:
    model = bundled_model()
    if model is None:
        raise ModelNotFoundError("the bundled model is missing from this installation; install the package again.")
    return model


def _in_repository(repo: str, file: str, *, download: bool) -> LocalModel:
    check_repository(repo, file)
    preset = next((preset for preset in PRESETS.values() if preset.repo.lower() == repo.lower()), None)
    if preset is not None and file in ("", preset.file):
        return find_local(preset.name) or _official(preset, download=download)
    if not file:
        snapshot = cached_snapshot(repo)
        if snapshot is not None:
            return local_model(snapshot)
    path = cached(repo, file) if file else None
    if path is None and not download:
        raise ModelNotFoundError(
            f"model {repo}{f'/{file}' if file else ''} is neither a path here nor in the Hugging Face cache; check the "
            f"name, or pass --download to fetch it from huggingface.co/{repo}."
        )
    if not file:
        return _fetch_repository(repo)
    return LocalModel(path=path or fetch(repo, file), kind="file", preset=preset_of_repository(repo, file))


def _fetch_repository(repo: str) -> LocalModel:
    files = remote_files(repo)
    if PIPELINE_INDEX in files:
        return local_model(fetch_pipeline(repo, files))
    weights = [file for file in files if PurePosixPath(file).suffix in WEIGHTS]
    if not weights:
        raise ModelNotFoundError(f"{repo} on the hub holds no weights; check the name.")
    file = only_model(weights)
    if file is None:
        raise InputError(f"{repo} on the hub holds {shortened(weights)}; name one, as in {repo}/{weights[0]}.")
    return LocalModel(path=fetch(repo, file), kind="file", preset=preset_of_repository(repo, file))


def _encoders_in(place: str) -> Path:
    path = existing(place)
    if path is None:
        raise ModelNotFoundError(f"encoders {place} is a path to nothing; check the path.")
    if not path.is_dir():
        return path
    found = next((path / file for file in ENCODER_FILES if (path / file).is_file()), None)
    if found is None:
        raise ModelNotFoundError(f"folder {path} holds no encoders: none of {', '.join(ENCODER_FILES)}; name the file.")
    return found


def _encoders_here() -> Path | None:
    folder = models_folder()
    places = _encoder_places(folder) if folder else []
    in_cache = (cached(ENCODER_REPO, file) for file in ENCODER_FILES)
    return next((path for path in (*places, *in_cache) if path is not None and path.is_file()), None)


def _encoder_places(folder: Path) -> list[Path]:
    places: list[Path] = []
    for file in ENCODER_FILES:
        # "model.safetensors" may be any model's, unless its folder is called after the encoders.
        named = folder / ENCODER_REPO.rpartition("/")[2] / file
        places += [named] if file in USUAL_FILES else [folder / file, *sorted(folder.glob(f"*/{file}"))]
    return places


def _is_usable(path: Path) -> bool:
    """False for a pruned copy without encoders on a machine that has none."""
    return not _lacks_encoders(path) or _encoders_here() is not None


def _lacks_encoders(path: Path) -> bool:
    return any(copy.file == path.name and not copy.has_encoders for copy in PRUNED_COPIES)


def _rank(model: LocalModel) -> tuple[bool, bool, int, str]:
    """Smallest first: complete before pruned, a pipeline before a file, safetensors before pickles."""
    order = WEIGHTS.index(model.path.suffix) if model.kind == "file" else 0
    return _lacks_encoders(model.path), model.kind == "file", order, str(model.path)


def _copies(preset: Preset) -> list[PrunedCopy]:
    """The pruned copies of a preset, complete ones first."""
    copies = (copy for copy in PRUNED_COPIES if copy.preset == preset.name)
    return sorted(copies, key=lambda copy: not copy.has_encoders)


def _preset_called(name: str) -> Preset | None:
    try:
        return get_preset(name)
    except InputError:
        return None
