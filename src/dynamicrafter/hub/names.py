"""What the name of a file, folder or repository says of the preset it holds."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from dynamicrafter.presets import PRESETS, PRUNED_COPIES, PRUNED_REPO

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # the safest first

SEEDED = "seeded:"  # before a name: no file at all, but weights drawn from their names

_OURS = re.compile(r"dynamic?[-_ ]?crafter")
# Words that go with a model's size; beside any other word, in a name without ours, a number may mean anything.
_OTHER_WORDS = re.compile(r"model|checkpoint|ckpt|weights?|v\d+|bf16|fp16|fp32|pruned|interp(?:olation)?|x\d*")
_COUNTS = re.compile(r"(?:step|steps|epoch|iter|global)[-_=. ]*\d+")


def preset_from_filename(path: str | Path) -> str | None:
    """Guess a preset from a repository in the Hugging Face cache, or a file's name, or else its folder's.

    Args:
        path: need not exist.

    Returns:
        None where the names say nothing, or two things.
    """
    path = Path(path)
    for part in path.parts:
        if part.startswith("models--"):
            found = preset_of_repository(part.removeprefix("models--").replace("--", "/", 1), path.name)
            if found is not None:
                return found
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() in WEIGHTS else path.name
    return _guess(stem) if _sizes(stem) else _guess(path.parent.name)


def preset_of_repository(repo: str, file: str) -> str | None:
    """The preset of a file in a repository on the hub: known, or guessed from their names."""
    for preset in PRESETS.values():
        if preset.repo.lower() == repo.lower():
            return preset.name
    if repo == PRUNED_REPO:
        return next((copy.preset for copy in PRUNED_COPIES if copy.file == file), None)
    name = repo.rpartition("/")[2]
    stem = PurePosixPath(file).stem
    return _guess(stem) if _sizes(stem) else _guess(name)


def _sizes(name: str) -> set[str]:
    """The presets' sizes that a name has as words of their own: 320x512 is 512; steps and epochs don't count."""
    known = {name: _words(name) for name in _told_by_name()}
    numbers = {word for words in known.values() for word in words if word.isdecimal()}
    words = _COUNTS.sub(" ", name.lower()).replace("crafter", "crafter ")
    found = re.findall(rf"(?<![a-z0-9])(?:\d{{3,4}}x)?({'|'.join(sorted(numbers))})(?:x\d{{3,4}})?(?![a-z0-9])", words)
    if found:
        return set(found)
    kinds = _kinds(name)
    return {word for words in known.values() if kinds and kinds <= words for word in words if word.isdecimal()}


def _kinds(name: str) -> set[str]:
    """The words of presets' names, numbers apart, that stand in a name: "interp"."""
    kinds = {word for preset in _told_by_name() for word in _words(preset) if not word.isdecimal()}
    return {kind for kind in kinds if kind in name.lower()}


def _words(preset: str) -> set[str]:
    return set(preset.split("_"))


def _guess(name: str) -> str | None:
    sizes, lowered = _sizes(name), name.lower()
    if len(sizes) != 1:
        return None
    words = re.findall(r"[a-z][a-z0-9]*", lowered)
    if not _OURS.search(lowered) and not all(_OTHER_WORDS.fullmatch(word) for word in words):
        return None
    wanted = sizes | _kinds(name)
    return next((preset for preset in _told_by_name() if _words(preset) == wanted), None)


def _told_by_name() -> list[str]:
    """DynamiCrafter's presets; the rest of the family is told by what the files hold."""
    return [preset.name for preset in PRESETS.values() if preset.network == "dynamicrafter"]
