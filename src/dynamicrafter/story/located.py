"""A YAML file as values that know where they stand, so that whatever is wrong with one can name its line.

Files come from anywhere: nothing in them is run, and aliases, with which a few lines stand for gigabytes, are refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynamicrafter.errors import InputError
from dynamicrafter.schema import shown
from dynamicrafter.specs.pictures import LoadedPicture

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 2**20
_OTHER_NUMBER = re.compile(r"[+-]?(?:0[0-9_]+|[0-9_]+(?::[0-9.]+)+)")  # octal, and to the base 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A value of a file, and where it stands.

    Attributes:
        value: text, number, truth value, None or a picture; a list of `Located`; or a dictionary of them by key.
        file: as it was named.
        line: the value's first, counted from 1.
        key_line: its key's; of a value without a key, `line`.
        remark: what messages add: how the value came about, where it isn't what was written.
        where: how messages begin instead of with file and line.
    """

    value: Any
    file: Path
    line: int
    key_line: int
    remark: str = ""
    where: str = ""

    def refusal(self, text: str, *, line: int | None = None) -> InputError:
        """An error that names the file and the line."""
        where = self.where or f"{self.file}, line {self.line if line is None else line}"
        return InputError(f"{where}: {text}{self.remark}")

    def plain(self) -> Any:
        """The value without places, as JSON has it."""
        if isinstance(self.value, dict):
            return {key: value.plain() for key, value in self.value.items()}
        if isinstance(self.value, list):
            return [value.plain() for value in self.value]
        return self.value.path if isinstance(self.value, LoadedPicture) else self.value

    def mapping(self, known: Collection[str], *, name: str) -> dict[str, Located]:
        """The value as keys and values.

        Args:
            known: the keys that may stand in it.
            name: what it is, for messages.

        Raises:
            InputError: it is something else, or has another key.
        """
        if not isinstance(self.value, dict):
            raise self.refusal(f"{name} must be written as `key: value`, got {shown(self.plain())}.")
        for key, value in self.value.items():
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
                raise self.refusal(f"{name} has no key {key!r}; {remedy}", line=value.key_line)
        return self.value

    def text(self, name: str) -> str:
        """The value as text.

        Raises:
            InputError: it is something else, such as `no`, which YAML takes for false.
        """
        if not isinstance(self.value, str):
            raise self.refusal(f"{name} must be text, got {shown(self.plain())}; put it into quotes.")
        return self.value


def locate(value: Any, where: str) -> Located:
    """A plain value as one that knows where it stands, for a story that no file holds.

    Args:
        value: as JSON has it, `LoadedPicture` for a picture among it; dictionaries and lists in it may be `Located`.
        where: how messages begin.
    """
    if isinstance(value, Located):
        return value
    if isinstance(value, dict):
        value = {key: locate(each, where) for key, each in value.items()}
    elif isinstance(value, list):
        value = [locate(each, where) for each in value]
    return Located(value=value, file=Path(), line=0, key_line=0, where=where)


def read_located(path: Path) -> Located:
    """Read a YAML file.

    Raises:
        InputError: it can't be read, is larger than a MiB, or isn't YAML; it holds an alias, or a key twice.
    """
    text = _read_text(path)
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.composer.ComposerError(None, None, "aliases can't be used here", mark)
            return super().compose_node(parent, index)

    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise InputError(f"{path} is empty; write a story in it.")
            return _located(node, loader, path, text, key_line=node.start_mark.line + 1)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path}{line}: this is no YAML that can be read ({problem}).") from error
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; a story needs four levels.") from None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{path} must be at most {MAX_BYTES} bytes; a story is a text of some lines a shot.")
        return content.decode()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"{path} can't be read ({reason}); name a YAML file.") from error


def _scalar(node: yaml.Node, loader: yaml.SafeLoader, path: Path, text: str) -> Any:
    """A single value, refused where YAML reads another than people write.

    Raises:
        InputError: a number with a leading zero, which YAML takes for octal, or with colons; a comment behind text.
    """
    value = loader.construct_object(node, deep=True)
    written, line = str(node.value), node.start_mark.line + 1
    if type(value) in (int, float) and _OTHER_NUMBER.fullmatch(written):
        raise InputError(f"{path}, line {line}: YAML reads {written} as {value}; write it plainly, or in quotes.")
    if isinstance(value, str) and getattr(node, "style", None) is None:
        rest = text[node.end_mark.index :].split("\n", 1)[0]
        if re.match(r"\s+#[^\s#]", rest):
            raise InputError(
                f"{path}, line {line}: {shown(rest.strip())} behind a text is a comment to YAML; put the whole text "
                f"into quotes, or write a space behind the # of a comment."
            )
    return value


def _located(node: yaml.Node, loader: yaml.SafeLoader, path: Path, text: str, *, key_line: int) -> Located:
    import yaml

    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        value: Any = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True) if isinstance(key_node, yaml.ScalarNode) else None
            here = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise InputError(f"{path}, line {here}: a key must be text, got {shown(key)}.")
            if key in value:
                raise InputError(f"{path}, line {here}: {key} stands here twice; leave one out.")
            value[key] = _located(value_node, loader, path, text, key_line=here)
    elif isinstance(node, yaml.SequenceNode):
        places = ((item, item.start_mark.line + 1) for item in node.value)
        value = [_located(item, loader, path, text, key_line=here) for item, here in places]
    else:
        value = _scalar(node, loader, path, text)
    return Located(value=value, file=path, line=line, key_line=key_line)
