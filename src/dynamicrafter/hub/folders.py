"""Models in ordinary folders: checkpoint files, and pipelines in diffusers' layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dynamicrafter.errors import InputError, ModelNotFoundError
from dynamicrafter.hub.names import WEIGHTS, preset_from_filename
from dynamicrafter.presets import BUNDLED, every_preset

MODELS_VARIABLE = "DYNAMICRAFTER_MODELS"
PIPELINE_INDEX = "model_index.json"  # diffusers' table of a pipeline's components
USUAL_FILES = ("model.ckpt", "model.safetensors")
BUNDLED_FOLDER = Path(__file__).parents[1] / BUNDLED.name


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """A model on this machine: a checkpoint file, or a pipeline folder in diffusers' layout."""

    path: Path
    kind: Literal["file", "folder"]
    preset: str | None  # where its repository, its settings or a name tells


def existing(name: str) -> Path | None:
    """A name as a path, if something is there."""
    try:
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL byte, or no such user: no path at all
        return None


def local_model(path: Path) -> LocalModel:
    """The model at an existing path.

    Raises:
        ModelNotFoundError: a folder without a model.
        InputError: a folder in which it is unclear which file is meant.
    """
    if not path.is_dir():
        return LocalModel(path=path, kind="file", preset=preset_from_filename(path.absolute()))
    if (path / PIPELINE_INDEX).is_file():
        return LocalModel(path=path, kind="folder", preset=_preset_of_pipeline(path))
    states = _deepspeed_states(path)
    if states is not None:
        return local_model(states)
    files = sorted(entry.name for entry in path.iterdir() if entry.suffix in WEIGHTS and entry.is_file())
    if not files:
        raise ModelNotFoundError(
            f"folder {path} holds no model: neither {PIPELINE_INDEX} nor a file that ends in {', '.join(WEIGHTS)}; "
            f"name another folder or the file."
        )
    file = only_model(files)
    if file is None:
        raise InputError(f"folder {path} holds {shortened(files)}; name the file that is meant.")
    return local_model(path / file)


def _deepspeed_states(folder: Path) -> Path | None:
    """The file of the weights in a checkpoint's folder of DeepSpeed's, whose file `latest` names the newest one.

    Raises:
        InputError: the weights are spread over several files.
    """
    try:
        tag = (folder / "latest").read_text(encoding="utf-8").strip() if (folder / "latest").is_file() else ""
    except (OSError, ValueError):
        return None
    inner = folder / tag if Path(tag).name == tag else folder
    found = sorted(inner.glob("*mp_rank_*_model_states.pt")) if inner.is_dir() else []
    parallel = {re.sub(r".*mp_rank_(\d+)_.*", r"\1", entry.name) for entry in found}
    if len(parallel) > 1:
        raise InputError(
            f"folder {folder} holds a model that DeepSpeed has split over {len(parallel)} processes; run "
            f"`python zero_to_fp32.py . weights` in it, and name the file that it writes."
        )
    return found[0] if found else None


def only_model(files: list[str]) -> str | None:
    """The one file of weights that is meant: the only one, the only one with a usual name, or the first of shards."""
    shards = {re.sub(r"-\d{5}-of-", "-of-", file) for file in files}
    if len(shards) == 1 and re.search(r"-\d{5}-of-\d{5}\.", files[0]):
        return files[0]
    usual = [file for file in files if file in USUAL_FILES]
    chosen = usual if len(usual) == 1 else files
    return chosen[0] if len(chosen) == 1 else None


def models_folder() -> Path | None:
    """The folder that DYNAMICRAFTER_MODELS names, if it is set.

    Raises:
        InputError: it names no folder.
    """
    value = os.environ.get(MODELS_VARIABLE, "")
    if not value:
        return None
    folder = existing(value)
    if folder is None or not folder.is_dir():
        raise InputError(f"{MODELS_VARIABLE} must name a folder, got {value!r}; correct or unset it.")
    return folder


def list_models_folder() -> list[LocalModel]:
    """Checkpoint files and pipelines in the folder that DYNAMICRAFTER_MODELS names, down to the third level.

    Raises:
        InputError: the variable names no folder.
    """
    folder = models_folder()
    if folder is None:
        return []
    paths = [path for pattern in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(pattern))]
    visible = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    pipelines = [path.parent for path in visible if path.name == PIPELINE_INDEX]
    files = [path for path in visible if path.suffix in WEIGHTS and path.is_file()]
    components = {path for path in files if not set(pipelines).isdisjoint(path.parents)}
    return [local_model(path) for path in (*pipelines, *(path for path in files if path not in components))]


def bundled_model() -> LocalModel | None:
    """The small trained model that comes with the package; None where it was installed without."""
    found = (BUNDLED_FOLDER / PIPELINE_INDEX).is_file()
    return LocalModel(path=BUNDLED_FOLDER, kind="folder", preset=BUNDLED.name) if found else None


def is_complete_pipeline(folder: Path) -> bool:
    """Whether each component that a pipeline's table names has its folder."""
    index = _read_json(folder / PIPELINE_INDEX)
    # A component stands as [library, class], and as [null, null] where the pipeline does without it.
    components = [name for name, place in index.items() if isinstance(place, list) and place and place[0] is not None]
    return all((folder / name).is_dir() for name in components)


def shortened(names: Iterable[str]) -> str:
    """A few names, and the number of the rest."""
    known = list(names)
    return ", ".join(known[:4]) + (f" and {len(known) - 4} more" if len(known) > 4 else "")


def _preset_of_pipeline(folder: Path) -> str | None:
    said = _read_json(folder / PIPELINE_INDEX).get("preset")
    name = said.get("name") if isinstance(said, dict) else None
    known = {preset.name for preset in every_preset()}
    return name if isinstance(name, str) and name in known else preset_from_filename(folder.absolute())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
