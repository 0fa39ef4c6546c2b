"""A file of weights as named tensors, mapped and unread, in whichever of four layouts it comes.

    with open_tensors("model.ckpt") as weights:
        weights.info("betas")   # from the table of contents
        weights["betas"]        # the file's own pages, read when used

Nothing in a file is ever run, and a file that is no checkpoint is told what it is instead: see `pickles` and `sniff`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dynamicrafter.checkpoints.pickles import read_legacy, read_zip, refuse_plain_pickle
from dynamicrafter.checkpoints.sniff import printable, refuse_stranger, sniff
from dynamicrafter.checkpoints.spellings import Weights, is_of_scaling, published_names, scaled, scales_of, shards_of
from dynamicrafter.errors import CheckpointError

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor

Layout = Literal["lightning", "deepspeed", "flat", "safetensors"]

# The safetensors format's names for torch's.
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}
_MIB = 1 << 20
_NUM_SAMPLES = 256
_SAMPLE = 4096  # bytes
_COMPONENT_SUFFIXES = frozenset({".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".json", ".txt"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a table of contents says of one tensor."""

    shape: tuple[int, ...]
    dtype: str  # torch's name without "torch.": "float32", "bfloat16", …


class TensorFile(Mapping[str, "Tensor"]):
    """Tensors of an open file by published name; a context manager, made by `open_tensors`.

    A tensor's memory is the file's own pages, private to this process: writing to it leaves the file alone. A tensor
    that the file stores with gaps, or in memory that another name shares, comes as a copy, so that no two are tied.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        *,
        infos: dict[str, TensorInfo],
        read: Callable[[str], Tensor],
        is_average: bool = False,
    ) -> None:
        self.path = path
        self.is_average = is_average  # of the weights of a run, and not they themselves
        self.layout: Layout = layout
        self._infos = infos
        self._read: Callable[[str], Tensor] | None = read  # the only thing that holds the file; None once closed

    def info(self, key: str) -> TensorInfo:
        """Shape and dtype of one tensor; reads no data.

        Raises:
            KeyError: no such name.
        """
        return self._infos[key]

    def renamed(self, stored: Mapping[str, str]) -> TensorFile:
        """The same file with other names, each with the name that it has now; scaled tensors times their scales."""
        read = self._read
        assert read is not None
        scales = scales_of({name: self._infos[key] for name, key in stored.items()})
        idle = set(scales.values())
        infos = {
            name: TensorInfo(self._infos[key].shape, "float32") if name in scales else self._infos[key]
            for name, key in stored.items()
            if name not in idle and not is_of_scaling(name)
        }
        by_name = scaled(lambda name: read(stored[name]), scales)
        return TensorFile(self.path, self.layout, infos=infos, read=by_name, is_average=self.is_average)

    def __getitem__(self, key: str) -> Tensor:
        if self._read is None:
            raise ValueError(f"{self.path} is closed; read its tensors before that.")
        if key not in self._infos:
            raise KeyError(key)
        return self._read(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def __contains__(self, key: object) -> bool:
        return key in self._infos

    # Mapping would compare every tensor with every other.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def close(self) -> None:
        """Let go of the file; a tensor that was handed out keeps its pages mapped for as long as it lives."""
        self._read = None

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_tensors(path: str | Path, *, weights: Weights = "trained") -> TensorFile:
    """Open a checkpoint: `.safetensors`, or a `torch.save` file that is Lightning's, DeepSpeed's or a flat state dict.

    What the file is shows in its first bytes; its name does not matter, but that of one of several shards stands for
    all of them. What trainers put before and into names is taken off, and scaled float8 tensors come times their
    scales. Entries that hold no tensor (epoch, versions, …) are left out. Only files of torch before 1.6 are read into
    memory whole.

    Args:
        weights: the trained ones, or their running average where the file has one beside them.

    Raises:
        CheckpointError: missing, cut short, unsafe, or no checkpoint; one line that says what it seems to be.
    """
    path = Path(path).expanduser()
    shards = indexed_shards(path) or shards_of(path)
    file = _merged(path, [_open_file(shard, weights) for shard in shards]) if shards else _open_file(path, weights)
    return file.renamed(published_names(file, path, weights=weights if not file.is_average else "trained"))


def indexed_shards(path: Path) -> list[Path]:
    """The files that an index of a model in several files names, which all lie beside it; none of another file.

    Raises:
        CheckpointError: it names files elsewhere.
    """
    if not path.name.endswith(".index.json") or not path.is_file():
        return []
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it must name files beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is no index of weights ({printable(str(error))}); name another file.") from None
    return [path.with_name(name) for name in names]


def _merged(path: Path, files: list[TensorFile]) -> TensorFile:
    owners: dict[str, TensorFile] = {}
    for file in files:
        repeated = next((key for key in file if key in owners), None)
        if repeated is not None:
            raise CheckpointError(
                f"{path}: {file.path.name} and another of its files both hold {repeated}; get them anew."
            )
        owners |= dict.fromkeys(file, file)
    infos = {key: file.info(key) for key, file in owners.items()}
    return TensorFile(path, files[0].layout, infos=infos, read=lambda key: owners[key][key])


def _open_file(path: Path, weights: Weights) -> TensorFile:
    average = False
    match sniff(path):
        case "safetensors":
            return _open_safetensors(path)
        case "zip":
            layout, tensors, average = read_zip(path, average=weights == "ema")
        case "legacy":
            layout, tensors, average = read_legacy(path, average=weights == "ema")
        case _:
            refuse_plain_pickle(path)
            refuse_stranger(path)
    infos = {
        key: TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in tensors.items()
    }
    shared = _sharing(tensors)

    def read(key: str) -> Tensor:
        tensor = tensors[key]
        return tensor.clone().contiguous() if key in shared or not tensor.is_contiguous() else tensor

    return TensorFile(path, layout, infos=infos, read=read, is_average=average)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a whole file, 64 hex digits; reads all of it (10 GB: about 20 seconds)."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: str | Path) -> str:
    """Tell one set of weights from another without reading all of it; the name and place of a file don't matter.

    Covers a file's size, its first and last MiB, and 256 blocks of 4 KiB evenly between: 3 MiB, whatever its size.
    The last MiB of a `torch.save` file holds a checksum of every tensor, so there any change shows. In a safetensors
    file of 10 GB a change shows if it touches one block in 40 MB, as any training does; a few altered bytes may not:
    that takes `file_hash`. A folder is the weights, settings and vocabularies in it, by their place in the folder.

    Returns:
        16 hex digits.

    Raises:
        CheckpointError: no such file, or a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        return _file_digest(path)[:16]
    digest = hashlib.sha256()
    components = _components(path)
    if not components:
        raise CheckpointError(f"{path} holds no weights or settings; name a model's folder.")
    for component in components:
        digest.update(f"{component.relative_to(path).as_posix()}\n{_file_digest(component)}\n".encode())
    return digest.hexdigest()[:16]


def _open_safetensors(path: Path) -> TensorFile:
    from safetensors import SafetensorError, safe_open

    header = _read_header(path)
    try:
        handle = safe_open(path, framework="pt")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({printable(str(error))}); download it again.") from error
    strange = sorted({entry["dtype"] for entry in header.values()} - DTYPES.keys())
    if strange:
        raise CheckpointError(f"{path} holds numbers of type {printable(strange[0])}, which is not read here.")
    infos = {key: TensorInfo(tuple(entry["shape"]), DTYPES[entry["dtype"]]) for key, entry in header.items()}
    return TensorFile(path, "safetensors", infos=infos, read=handle.get_tensor)


def _read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The table of contents, held against the file's size before anything is mapped."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    if len(text) < length:
        raise _cut_short(path, size, 8 + length)
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
        header.pop("__metadata__", None)
        needed = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged header ({printable(str(error))}); download it again.") from error
    if not header:
        raise CheckpointError(f"{path} has no weights: its header names no tensor; name another file.")
    if size < needed:
        raise _cut_short(path, size, needed)
    if size > needed:
        raise CheckpointError(
            f"{path} is damaged: it is {size - needed:,} bytes longer than its header says; download it again."
        )
    return header


def _cut_short(path: Path, size: int, needed: int) -> CheckpointError:
    return CheckpointError(f"{path} is cut short: {size:,} bytes of {needed:,} or more; download it again.")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    repeated = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if repeated:
        raise ValueError(f"it names {repeated[0]} twice")
    return dict(pairs)


def _sharing(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names whose memory overlaps another's."""
    spans = []
    for key, tensor in tensors.items():
        if tensor.numel():
            reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
            spans.append((tensor.data_ptr(), tensor.data_ptr() + reach * tensor.element_size(), key))
    spans.sort()
    shared: set[str] = set()
    end, last = 0, ""
    for start, stop, key in spans:
        if start < end:
            shared |= {key, last}
        if stop > end:
            end, last = stop, key
    return shared


def _file_digest(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; check the path.")
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= 2 * _MIB + _NUM_SAMPLES * _SAMPLE:
            digest.update(file.read())
            return digest.hexdigest()
        digest.update(file.read(_MIB))
        gap = size - 2 * _MIB - _SAMPLE
        for index in range(_NUM_SAMPLES):
            file.seek(_MIB + index * gap // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE))
        file.seek(size - _MIB)
        digest.update(file.read(_MIB))
    return digest.hexdigest()


def _components(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in _COMPONENT_SUFFIXES and p.is_file())
    visible = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted(visible, key=lambda p: p.relative_to(folder).as_posix())
