"""Jobs from a folder of pictures, with prompts beside them or in one file as the published code has them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from dynamicrafter.errors import InputError
from dynamicrafter.files.names import composed
from dynamicrafter.jobs.job import Defaults, Job, JobsError, check_key
from dynamicrafter.media.pictures import SUFFIXES
from dynamicrafter.modes import INTERPOLATE, MODES, Mode, mode_for
from dynamicrafter.specs.clip import ClipSpec

logger = logging.getLogger(__name__)

PUBLISHED_PROMPTS = "test_prompts.txt"
_LONGEST = 2**20  # bytes of a text file of prompts
_NUMBERED = re.compile(r"(.+)_0*(\d+)", flags=re.DOTALL)
_ENDS = {".first": 0, ".last": 1}


@dataclass(frozen=True, slots=True)
class _Subject:
    """What one clip is made of, and what its prompt's file is called."""

    key: str
    pictures: tuple[Path, ...]


def jobs_in_folder(folder: Path, defaults: Defaults, *, published_layout: bool = False) -> list[Job]:
    """A job for each picture, or pair of pictures, in natural order of their names.

    The prompt of `boat.jpg` stands in `boat.txt`, or else is the defaults'. To interpolate, pictures go in pairs,
    x_01 and x_02, or x.first and x.last, with the prompt in `x.txt`. In the published layout, line k of a text file is
    the prompt of the k-th picture, or, to interpolate, of the k-th two pictures, whatever they are called.

    Raises:
        JobsError: pictures without prompt or partner, prompts without picture; all are said.
        InputError: the folder, or the file of prompts, can't be read.
    """
    try:
        files = sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: natural(path.name))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}); check its name.") from None
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    texts = [path for path in files if path.suffix.lower() == ".txt" and not path.name.startswith(".")]
    if not pictures:
        raise InputError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}); name a folder with some.")
    if published_layout:
        return _published(folder, pictures, texts, defaults)
    subjects, mode = _subjects(folder, pictures, texts, defaults.mode)
    return _with_prompts(folder, subjects, texts, mode, defaults)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts names as people do, 2 before 10; the name itself settles what would be equal."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def _stem(path: Path) -> str:
    """A name without its extension, in the letters in which names are compared."""
    return composed(path.stem)


def _subjects(
    folder: Path, pictures: Sequence[Path], texts: Iterable[Path], mode: Mode | None
) -> tuple[list[_Subject], Mode | None]:
    """Pictures as they go into clips: each on its own, or in pairs."""
    if mode is not None and MODES[mode].pictures == (1, 1):
        return [_Subject(_stem(path), (path,)) for path in pictures], mode
    pairs = _pairs(pictures, own_prompts={_stem(path) for path in texts})
    paired = {path for pair in pairs for path in pair.pictures}
    left = [path for path in pictures if path not in paired]
    if mode == INTERPOLATE and left:
        raise JobsError(folder, [f"{path}: no partner; call two pictures x_01 and x_02, or x.first and x.last." for path in left])  # fmt: skip  # noqa: E501
    if pairs and mode is None:
        names = " and ".join(path.name for path in pairs[0].pictures)
        logger.warning(
            "%d pairs of pictures are interpolated, such as %s; --mode animate takes each picture for itself.",
            len(pairs),
            names,
        )
    singles = [_Subject(_stem(path), (path,)) for path in left]
    return sorted([*pairs, *singles], key=lambda subject: natural(subject.pictures[0].name)), mode


def _pairs(pictures: Sequence[Path], *, own_prompts: set[str]) -> list[_Subject]:
    """Pictures that are called x.first and x.last, or x_1 and x_2 where there is no x_3 nor a prompt of x_1 alone."""
    groups: dict[str, dict[int, list[Path]]] = {}
    for path in pictures:
        stem, numbered = Path(_stem(path)), _NUMBERED.fullmatch(_stem(path))
        if stem.suffix in _ENDS:
            groups.setdefault(stem.stem, {}).setdefault(_ENDS[stem.suffix], []).append(path)
        elif numbered is not None:
            groups.setdefault(numbered[1], {}).setdefault(int(numbered[2]) - 1, []).append(path)
    found = []
    for key, places in groups.items():
        ends = [path for paths in places.values() for path in paths]
        if sorted(places) == [0, 1] and len(ends) == 2 and not own_prompts & {_stem(path) for path in ends}:
            found.append(_Subject(key, (places[0][0], places[1][0])))
    return found


def _with_prompts(
    folder: Path, subjects: Sequence[_Subject], texts: Sequence[Path], mode: Mode | None, defaults: Defaults
) -> list[Job]:
    prompts = {_stem(path): path for path in texts}
    problems = [
        f"{path}: a prompt without a picture; call it as the picture is called."
        + (" --published-layout reads it line by line." if len(texts) == 1 else "")
        for stem, path in prompts.items()
        if stem not in {subject.key for subject in subjects}
    ]
    jobs = []
    for subject in subjects:
        where = str(subject.pictures[0])
        try:
            prompt = _prompt_in(prompts[subject.key]) if subject.key in prompts else defaults.prompt
            if prompt is None:
                raise InputError(f'no prompt; write {folder / subject.key}.txt, or give all one: --prompt "…".')
            jobs.append(_job(subject, where, prompt, mode, defaults))
        except InputError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise JobsError(folder, problems)
    return jobs


def _published(folder: Path, pictures: Sequence[Path], texts: Sequence[Path], defaults: Defaults) -> list[Job]:
    if defaults.prompt is not None:
        raise InputError("prompt must be left out with --published-layout, where each picture has one in the folder.")
    names = [path.name for path in texts]
    if len(texts) != 1 and PUBLISHED_PROMPTS not in names:
        raise InputError(f"{folder} must hold {PUBLISHED_PROMPTS} or one text file, got {', '.join(names) or 'none'}.")
    text = texts[names.index(PUBLISHED_PROMPTS)] if len(texts) > 1 else texts[0]
    lines = _lines(text)
    size = 2 if defaults.mode == INTERPOLATE else 1
    subjects = [_Subject(_key(part), part) for k in range(0, len(pictures), size) if (part := tuple(pictures[k : k + size]))]  # fmt: skip  # noqa: E501
    if len(subjects) != len(lines) or len(subjects[-1].pictures) != size:
        raise JobsError(folder, [_mismatch(text, lines, subjects, size)], _both_sides(lines, subjects))
    jobs, problems = [], []
    for number, (subject, prompt) in enumerate(zip(subjects, lines, strict=True), start=1):
        where = f"{text}, line {number} ({' and '.join(path.name for path in subject.pictures)})"
        try:
            jobs.append(_job(subject, where, prompt, defaults.mode, defaults))
        except InputError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise JobsError(folder, problems)
    return jobs


def _key(pictures: Sequence[Path]) -> str:
    pair = _pairs(pictures, own_prompts=set()) if len(pictures) == 2 else []
    return pair[0].key if pair else "-".join(_stem(path) for path in pictures)


def _mismatch(text: Path, lines: Sequence[str], subjects: Sequence[_Subject], size: int) -> str:
    num_pictures = sum(len(subject.pictures) for subject in subjects)
    wanted = "two pictures for each line" if size == 2 else "a picture for each line"
    return f"{text} has {len(lines)} lines and its folder {num_pictures} pictures, where there must be {wanted}:"


def _both_sides(lines: Sequence[str], subjects: Sequence[_Subject]) -> list[str]:
    """Lines against pictures, so that the first that doesn't fit can be seen."""
    sides = zip_longest(lines, subjects)
    return [
        f"  line {number}: {'(none)' if line is None else repr(line)} | "
        + ("(no picture)" if subject is None else " and ".join(path.name for path in subject.pictures))
        for number, (line, subject) in enumerate(sides, start=1)
    ]


def _job(subject: _Subject, where: str, prompt: str, mode: Mode | None, defaults: Defaults) -> Job:
    check_key(subject.key)
    return Job(
        where=where,
        clip=ClipSpec(
            pictures=subject.pictures,
            prompts=(prompt,),
            mode=mode or mode_for(len(subject.pictures)),
            options=defaults.options,
            item=subject.key,
        ),
        output=defaults.output,
    )


def _prompt_in(path: Path) -> str:
    """The whole text as one line."""
    return " ".join(" ".join(_lines(path)).split())


def _lines(path: Path) -> list[str]:
    """Lines of a text, blank ones too; what follows the last line's end is none."""
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError(f"{path} is larger than {_LONGEST >> 20} MiB; is it a text of prompts?")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text ({error.reason}); save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in (lines[:-1] if not lines[-1] else lines)]
