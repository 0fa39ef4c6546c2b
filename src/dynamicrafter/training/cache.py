"""What the frozen networks answer, kept on the disk, so that training needs neither them nor the clips.

A cache holds the first clips of the endless order: `cache.json` says of which model and data, `nothing.safetensors`
what stands in for dropped conditions, `clips-00000.safetensors` and so on the clips: mean and deviation of their
latents, so that every pass draws its own noise, their text, and the image tokens of some of their frames. Training
that goes on for longer than the cache meets the same windows of the clips again; more passes keep more windows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamicrafter.data.stream import ClipStream, Sample
from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file, sync
from dynamicrafter.files.json_files import write_json
from dynamicrafter.randomness import generator_for
from dynamicrafter.training.batches import Share, micro_batches
from dynamicrafter.training.config import DataConfig, TrainConfig
from dynamicrafter.training.encoding import Encoded, NullEmbeddings, encode_clip, encode_nothing
from dynamicrafter.training.settings import to_plain
from dynamicrafter.training.sources import FROZEN, load_model, open_stream, rest
from dynamicrafter.training.trainee import resting_dtype

INDEX, NOTHING = "cache.json", "nothing.safetensors"
SHARD = 16  # clips in a file: some 30 MB of them at 512×320
_SMALL = 4096  # elements of a parameter that goes into a model's fingerprint
_OPEN = 64  # files kept open
_TENSORS = ("mean", "std", "text", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """What a cache holds.

    Attributes:
        passes: over the clips.
        pictures: frames of a clip whose image tokens are kept, which may be its condition picture later.
        dtype: of what is kept; float32 keeps every bit.
        device: to encode on.
    """

    passes: int = 1
    pictures: int = 4
    dtype: torch.dtype = torch.float16
    device: str | torch.device = "cpu"


def fill(
    config: TrainConfig,
    folder: Path,
    options: CacheOptions,
    *,
    stream: ClipStream | None = None,
    pipeline: Any = None,
    on_clip: Callable[[int, int], None] | None = None,
) -> Path:
    """Fill a cache; one that was begun goes on.

    Args:
        config: of the training to come; its model, data and objective count.
        stream, pipeline: as in `train`.
        on_clip: called with clips done and clips in all.

    Raises:
        InputError: the folder holds a cache of something else; no model, no clips.
    """
    pipeline = load_model(config) if pipeline is None else pipeline
    stream = open_stream(config.data, pipeline) if stream is None else stream
    clips = options.passes * len(stream)
    index = {
        "model": fingerprint(pipeline),
        "data": data_settings(config.data),
        "clips": clips,
        "pictures": frames_kept(config, options, position=None),
        "dtype": str(options.dtype).removeprefix("torch."),
    }
    _begin(folder, index)
    rest(pipeline, torch.device(options.device), resting_dtype(config.precision))
    with one_line_errors(folder):
        nothing = encode_nothing(pipeline)
        _write(folder / NOTHING, {"text": nothing.text, "image": nothing.image}, options.dtype, {})
        for first in range(0, clips, SHARD):
            last = min(first + SHARD, clips)
            target = folder / _shard_name(first // SHARD)
            if not target.exists():
                _write_shard(config, options, target, pipeline, stream, range(first, last))
            if on_clip is not None:
                on_clip(last, clips)
    return folder


def _write_shard(
    config: TrainConfig, options: CacheOptions, target: Path, pipeline: Any, stream: ClipStream, positions: range
) -> None:
    tensors: dict[str, Tensor] = {}
    rows = []
    share = Share(batch_size=1, accumulation=1)
    steps = {"first_step": positions.start, "last_step": positions.stop}
    batches = micro_batches(stream, share, **steps, workers=config.workers)
    for position, [sample] in zip(positions, batches, strict=True):
        frames = frames_kept(config, options, position=position, num_frames=sample.pixels.shape[1])
        clip = encode_clip(pipeline, sample, frames)
        tensors |= {f"{position}.{name}": getattr(clip, name) for name in _TENSORS}
        rows.append({"key": clip.key, "motion": clip.motion, "frames": list(clip.frames)})
    _write(target, tensors, options.dtype, {"clips": json.dumps(rows)})


def frames_kept(config: TrainConfig, options: CacheOptions, *, position: int | None, num_frames: int = 0) -> Any:
    """Which frames' image tokens are kept of the clip at a position; for None, how that is settled."""
    objective = config.objective
    only_first = objective.condition == "first" or objective.ends == 1
    if position is None:
        return "first" if only_first else options.pictures
    if only_first:
        return [0]
    generator = generator_for(config.data.seed, item=f"cache/{position}")
    chosen = torch.randperm(num_frames, generator=generator)[: options.pictures].tolist()
    return sorted({*chosen, 0} if objective.ends > 0 else chosen)


def fingerprint(pipeline: Any) -> str:
    """Tells frozen networks apart by their small parameters, without reading the large ones from the disk."""
    digest = hashlib.sha256()
    for name in FROZEN:
        for key, tensor in sorted(getattr(pipeline, name).state_dict().items()):
            digest.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
            if tensor.numel() <= _SMALL and tensor.is_floating_point():
                digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def data_settings(data: DataConfig) -> dict[str, Any]:
    """What decides which clips a cache holds, as JSON keeps it, with a digest of the list itself."""
    settings = json.loads(json.dumps(to_plain(replace(data, report=None))))
    path = None if data.path is None else data.path.expanduser()
    if path is None or not path.exists():
        return settings
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode(errors="surrogatepass"))
    else:
        digest.update(path.read_bytes())
    return settings | {"path": str(path.absolute()), "digest": digest.hexdigest()}


class CachedClips:
    """A `ClipSource` that reads a cache and leaves the frozen networks where they are."""

    def __init__(self, config: TrainConfig, pipeline: Any, device: torch.device) -> None:
        assert config.cache is not None
        self._folder = config.cache
        self.config = config
        self.pipeline = pipeline
        self._device = device
        self._index = read_index(self._folder)
        self.fingerprint: str | None = None  # of the clips, which the cache has taken the place of
        self._check()
        tensors = load_file(self._folder / NOTHING)
        self.nothing = NullEmbeddings(tensors["text"].float(), tensors["image"].float())
        self._shard = lru_cache(_OPEN)(_Shard)

    def batches(self, share: Share, *, first_step: int, last_step: int) -> Iterator[list[Encoded]]:
        for step in range(first_step, last_step):
            for micro in range(share.accumulation):
                yield [self._read(position % self._index["clips"]) for position in share.positions(step, micro)]

    def first_clip(self) -> Sample | None:
        return None

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Bring the frozen networks to the device, and away again."""
        rest(self.pipeline, self._device, resting_dtype(self.config.precision))
        try:
            yield
        finally:
            for name in FROZEN:
                getattr(self.pipeline, name).to("cpu")

    def __enter__(self) -> CachedClips:
        return self

    def __exit__(self, *_: object) -> None:
        self._shard.cache_clear()

    def _read(self, position: int) -> Encoded:
        number, place = divmod(position, SHARD)
        return self._shard(self._folder / _shard_name(number)).clip(position, place)

    def _check(self) -> None:
        """Hold the cache against the model and the settings.

        Raises:
            InputError: it is of other networks or other clips, or incomplete.
        """
        folder, index, config = self._folder, self._index, self.config
        if index["model"] != fingerprint(self.pipeline):
            raise InputError(f"cache {folder} was made by other networks than {config.model}'s; make it again.")
        now = data_settings(config.data)
        names = index["data"] if config.data.path is not None else ("size", "num_frames")
        for name in names:
            if name in now and now[name] != index["data"][name]:
                raise InputError(
                    f"cache {folder} was made with data.{name} {index['data'][name]}, not {now[name]}; make it again, "
                    f"or train with the same settings."
                )
        first_only = config.objective.condition == "first" or config.objective.ends == 1
        if index["pictures"] == "first" and not first_only:
            raise InputError(f"cache {folder} holds first frames only; make it again with this recipe.")
        missing = [n for n in range(-(-index["clips"] // SHARD)) if not (folder / _shard_name(n)).exists()]
        if missing:
            raise InputError(f"cache {folder} is not complete; run `dynamicrafter data cache` again to go on with it.")


class _Shard:
    """One file of a cache, mapped and read clip by clip."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
            self._rows = json.loads(self._file.metadata()["clips"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{path} can't be read ({error}); remove it and fill the cache again.") from error

    def clip(self, position: int, place: int) -> Encoded:
        row = self._rows[place]
        tensors = {name: self._file.get_tensor(f"{position}.{name}").float() for name in _TENSORS}
        return Encoded(**tensors, frames=tuple(row["frames"]), motion=row["motion"], key=row["key"])


def read_index(folder: Path) -> dict[str, Any]:
    """What a cache says of itself.

    Raises:
        InputError: there is none.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        return {name: index[name] for name in ("model", "data", "clips", "pictures", "dtype")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cache {folder} can't be read ({error}); fill it with `dynamicrafter data cache`.") from error


def _begin(folder: Path, index: Mapping[str, Any]) -> None:
    """Write what the cache is to hold, or hold a cache that was begun against it."""
    with one_line_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / INDEX).exists():
            before = read_index(folder)
            differing = [name for name in before if before[name] != index[name]]
            if differing:
                raise InputError(
                    f"output {folder} holds a cache with another {differing[0]}; choose another folder, or remove it."
                )
            return
        write_json(folder / INDEX, index)


def _write(target: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype, metadata: dict[str, str]) -> None:
    with replacing_file(target) as aside:
        whole = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
        save_file(whole, aside, metadata=metadata)
        sync(aside)


def _shard_name(number: int) -> str:
    return f"clips-{number:05}.safetensors"
