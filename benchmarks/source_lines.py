"""Counts lines that hold code by room; comments, docstrings and blank lines are none. Usage: source_lines.py [src]"""

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {line for token in tokens if token.type not in _NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        for statement in body if isinstance(body := getattr(node, "body", None), list) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines -= set(range(statement.lineno, statement.end_lineno + 1))
    return len(lines)


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src") / "dynamicrafter"
    rooms: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        rooms[path.relative_to(root).parts[0]] += code_lines(path.read_text(encoding="utf-8"))
    for room, lines in rooms.items():
        print(f"{lines:7,} {room}")
    print(f"{rooms.total():7,} in all")


if __name__ == "__main__":
    main()
