"""Checkpoints written by `torch.save`: looked through first, then mapped; nothing in them ever runs.

A pickle is a program that names functions and calls them. Two gates stand before it. The first reads the program as
plain text (`pickletools`: nothing is imported, built or called) and refuses the file if it names anything but tensors
and plain containers. The second is torch's own `weights_only` reader, which knows no other names either.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from dynamicrafter.checkpoints.sniff import printable
from dynamicrafter.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

PickleLayout = Literal["lightning", "deepspeed", "flat"]

DEEPSPEED_PREFIX = "_forward_module."
_HARMLESS = re.compile(
    r"collections\.(?:OrderedDict|Counter)"
    r"|builtins\.(?:set|bytearray|complex)|_codecs\.encode"  # how protocol 2 writes bytes
    r"|torch\.(?:Size|device|Tensor|(?:cuda\.)?\w+Storage|b?float\d+\w*|u?int\d+|bool|complex\d+)"
    r"|torch\.storage\.(?:Untyped|Typed)Storage|torch\.nn\.parameter\.Parameter"
    r"|torch\._utils\._rebuild_(?:tensor|tensor_v2|tensor_v3|parameter)"
)
_TRAINED = ("model_state_dict", "model")  # where trainers of one's own keep the weights
_AVERAGES = ("ema_state_dict", "model_ema", "ema_model", "ema")
_PROTOCOL = 2  # what torch.save writes unless told otherwise, and all that the weights_only reader knows
_NUM_LEGACY_PICKLES = 5  # magic number, version, machine, the object, names of the storages
_NAMED = 3  # refused names in a message before it counts the rest


def read_zip(path: Path, *, average: bool = False) -> tuple[PickleLayout, dict[str, Tensor], bool]:
    """Map the tensors of a `torch.save` file; no data is read before a tensor is used.

    Args:
        average: take the running average where the file keeps one in a dictionary of its own.

    Returns:
        The layout, the tensors by name, and whether they are such an average.

    Raises:
        CheckpointError: unsafe, damaged, re-packed, no checkpoint, or without tensors.
    """
    if path.suffix.lower() == ".safetensors":  # torch.load would trust the name
        raise CheckpointError(f"{path} is a pickled checkpoint under a .safetensors name; rename it to end in .ckpt.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(path, archive)
            with archive.open(_only_pickle(path, entries)) as program:
                _refuse_unsafe(path, program, num_pickles=1)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive fails in zipfile with a dozen classes
        raise _damaged(path, error) from error
    layout, tensors, is_average = _choose(path, _load(path, mmap=True), average=average)
    _check_sizes(path, tensors.values(), sizes=[entry.file_size for entry in entries])
    return layout, tensors, is_average


def read_legacy(path: Path, *, average: bool = False) -> tuple[PickleLayout, dict[str, Tensor], bool]:
    """Read a file of torch before 1.6 into memory, as `read_zip`; its layout can't be mapped.

    Raises:
        CheckpointError: unsafe, damaged, or without tensors.
    """
    with path.open("rb") as file:
        _refuse_unsafe(path, file, num_pickles=_NUM_LEGACY_PICKLES)
    return _choose(path, _load(path, mmap=False), average=average)


def refuse_plain_pickle(path: Path) -> None:
    """Name what a pickle that `torch.save` did not write would call; returns if the file is no pickle at all.

    Raises:
        CheckpointError: it is a pickle.
    """
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        try:
            names, _ = _scan(file)
        except (ValueError, MemoryError):
            if head[:1] != b"\x80":
                return
            names = []
    _refuse_names(path, names)
    if head[:1] == b"\x80":
        raise CheckpointError(
            f"{path} is a plain pickle, not a file of torch.save; save its state dict as .safetensors."
        )


def _entries(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    repeated = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
    if repeated:
        raise CheckpointError(
            f"{path} is forged or damaged: it has {printable(repeated[0])!r} twice; get another copy."
        )
    return entries


def _only_pickle(path: Path, entries: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """The record that holds the pickle, in the folder of the first record, where torch looks for it."""
    names = [entry.filename for entry in entries]
    folder = names[0].split("/")[0] if names else ""
    if f"{folder}/constants.pkl" in names:
        raise CheckpointError(f"{path} is a TorchScript program, not a checkpoint; get the .safetensors or .ckpt file.")
    programs = [entry for entry in entries if entry.filename == f"{folder}/data.pkl"]
    if not programs:
        shown = ", ".join(printable(name) for name in names[:_NAMED]) or "nothing"
        raise CheckpointError(
            f"{path} is a zip archive but no checkpoint (it holds {shown}); if one is inside, unpack it first."
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{path} was packed anew with compression, so that it can't be mapped; get the file as torch.save wrote it."
        )
    return programs[0]


def _scan(program: IO[bytes]) -> tuple[list[str], int]:
    """The global names that one pickle looks up, and its protocol; leaves `program` behind its last byte."""
    names: list[str] = []
    pushed: list[Any] = [None, None]
    memo: dict[int, Any] = {}
    protocol = 0
    opcodes: Iterable[tuple[Any, Any, Any]] = pickletools.genops(program)
    for opcode, argument, _ in opcodes:
        match opcode.name:
            case "PROTO":
                protocol = argument
            case "GLOBAL" | "INST":
                names.append(argument.replace(" ", "."))
            case "STACK_GLOBAL":  # its two words are text pushed just before, or recalled from the memo
                names.append(".".join(str(word) for word in pushed[-2:]))
            case "EXT1" | "EXT2" | "EXT4":
                names.append(f"copyreg extension {argument}")
            case "MEMOIZE":
                memo[len(memo)] = pushed[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = pushed[-1]
        if opcode.stack_after and opcode.name != "MEMOIZE":
            pushed.append(memo.get(argument) if "GET" in opcode.name else argument)
    return [name.replace("__builtin__.", "builtins.", 1) for name in names], protocol


def _refuse_unsafe(path: Path, program: IO[bytes], *, num_pickles: int) -> None:
    names, protocols = [], set()
    try:
        for _ in range(num_pickles):
            found, protocol = _scan(program)
            names += found
            protocols.add(protocol)
    except (ValueError, MemoryError) as error:  # a wrong length asks for more memory than there is
        _refuse_names(path, names)
        raise _damaged(path, error) from error
    _refuse_names(path, names)
    if protocols != {_PROTOCOL}:
        raise CheckpointError(
            f"{path} is written in pickle protocol {max(protocols)}, and only protocol {_PROTOCOL} can be read safely; "
            f"save its state dict as .safetensors."
        )


def _refuse_names(path: Path, names: Iterable[str]) -> None:
    refused = sorted({printable(name) for name in names if not _HARMLESS.fullmatch(name)})
    if refused:
        more = f" and {len(refused) - _NAMED} more" * (len(refused) > _NAMED)
        raise CheckpointError(
            f"{path} is refused, and nothing in it was run: besides tensors and plain containers it holds "
            f"{', '.join(refused[:_NAMED])}{more}; if you trust its origin, save only its state dict as .safetensors "
            f"where it was made, or get a .safetensors copy."
        )


def _load(path: Path, *, mmap: bool) -> Any:
    import torch

    try:
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged file fails anywhere in torch's reader, with any class
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return CheckpointError(f"{path} is damaged or cut short ({printable(lines[0], limit=120)}); download it again.")


def _choose(path: Path, content: Any, *, average: bool) -> tuple[PickleLayout, dict[str, Tensor], bool]:
    """Find the state dict in what was loaded, under published names."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dictionary of weights; name another file."
        )
    entries = _bare(content)
    for name in _AVERAGES if average else ():
        if isinstance(entries.get(name), dict):
            return "flat", _tensors_of(path, entries[name], place=f"its {name}"), True
    if isinstance(entries.get("state_dict"), dict):
        return "lightning", _tensors_of(path, entries["state_dict"], place="its state_dict"), False
    if isinstance(entries.get("module"), dict):
        tensors = _tensors_of(path, entries["module"], place="its module")
        _refuse_pieces(path, tensors)
        return "deepspeed", _without_prefix(path, tensors), False
    for name in (*_TRAINED, *_AVERAGES):
        if isinstance(entries.get(name), dict):
            return "flat", _tensors_of(path, entries[name], place=f"its {name}"), name in _AVERAGES
    return "flat", _tensors_of(path, entries, place="it"), False


def _refuse_pieces(path: Path, tensors: dict[str, Tensor]) -> None:
    empty = sum(tensor.numel() == 0 for tensor in tensors.values())
    if 2 * empty > len(tensors):
        raise CheckpointError(
            f"{path} holds empty tensors: DeepSpeed's ZeRO-3 keeps the weights in pieces, a file for each process; run "
            f"`python zero_to_fp32.py . weights` in the checkpoint's folder, and name the file that it writes."
        )


def _bare(entries: dict[Any, Any]) -> dict[Any, Any]:
    # Not dict(entries): a pickle may hang an attribute called `keys` or `items` on an OrderedDict.
    return {key: value for key, value in dict.items(entries)}  # noqa: C416


def _tensors_of(path: Path, entries: dict[Any, Any], *, place: str) -> dict[str, Tensor]:
    import torch

    entries = _bare(entries)
    strange = [key for key in entries if not isinstance(key, str)]
    if strange:
        raise CheckpointError(
            f"{path} has a key that is no text, {printable(repr(strange[0]))}, so {place} holds no state dict; "
            f"name another file."
        )
    tensors = {key: value.detach() for key, value in entries.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        found = ", ".join(printable(key, limit=40) for key in list(entries)[:8]) or "nothing"
        raise CheckpointError(
            f"{path} has no weights: {place} holds no tensor but {found}; expected a state dict, or one under "
            f"'state_dict' or 'module'."
        )
    for key, value in entries.items():
        if key not in tensors and _has_tensor(value):
            raise CheckpointError(
                f"{path} keeps tensors both in {place} and deeper, under {printable(key)!r}, so that it is unclear "
                f"which are the weights; save the state dict alone as .safetensors."
            )
    return tensors


def _has_tensor(value: Any) -> bool:
    import torch

    pending, seen = [value], set()
    while pending:  # not recursive: a hostile file may nest deeper than Python's stack, or in a ring
        item = pending.pop()
        if isinstance(item, torch.Tensor):
            return True
        if id(item) not in seen and isinstance(item, dict | list | tuple | set):
            seen.add(id(item))
            pending.extend(dict.values(item) if isinstance(item, dict) else item)
    return False


def _without_prefix(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    bare = [key for key in tensors if not key.startswith(DEEPSPEED_PREFIX)]
    if len(bare) == len(tensors):
        return tensors  # DeepSpeed without Lightning around it
    if bare:
        raise CheckpointError(
            f"{path} mixes keys with and without the prefix {DEEPSPEED_PREFIX} ({printable(bare[0])} lacks it), and so "
            f"two could mean one weight; save the state dict again."
        )
    return {key.removeprefix(DEEPSPEED_PREFIX): value for key, value in tensors.items()}


def _check_sizes(path: Path, tensors: Iterable[Tensor], *, sizes: list[int]) -> None:
    # A mapped storage is a slice of the file as long as the pickle claims; torch doesn't hold that against the record.
    claimed = {(s.data_ptr(), s.nbytes()) for s in (tensor.untyped_storage() for tensor in tensors) if s.nbytes()}
    surplus = Counter(size for _, size in claimed) - Counter(sizes)
    if surplus:
        raise CheckpointError(
            f"{path} is damaged: a tensor claims {max(surplus):,} bytes, and no record of that length is in the file; "
            f"download it again."
        )
