"""What README and docs tell people to type: it parses, and what needs no checkpoint runs."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from dynamicrafter.cli import main as cli
from dynamicrafter.cli.parsing import parse

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.strip().splitlines()
]


def words_of(line):
    """The arguments of the `dynamicrafter` command in a line, after `&&` where there is one."""
    command = shlex.split(line.partition("&&")[2] or line)
    assert command[0] == "dynamicrafter"
    return command[1:]


OURS = [(page, line) for page, line in COMMANDS if re.search(r"(^|&& )dynamicrafter ", line)]


def test_readme_sets_up_in_two_commands():
    installs = [line for page, line in COMMANDS if page == "README.md" and "pip install" in line]
    assert len(installs) == 2
    assert "dynamicrafter animate" in installs[0]
    assert installs[1] == 'pip install -e ".[dev]" && pytest'


@pytest.mark.parametrize(("page", "line"), OURS)
def test_every_command_in_the_docs_parses(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, rest = cli._split(words_of(line))
    for flag, value in pairwise(rest):
        if flag == "--lora":  # is looked for at once
            Path(value.rpartition(":")[0] or value).mkdir(parents=True)
    parse(cli._find(cli._COMMANDS[name].arguments), rest, prog=f"dynamicrafter {name}")


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
