import io
import os
import re
import subprocess
import sys

import pytest

import dynamicrafter

TINY = ("--model", "seeded:tiny", "--steps", "1", "--frames", "1", "--guidance", "1")
HEAVY = ("torch", "diffusers", "transformers", "av", "huggingface_hub", "accelerate")
LIGHT_WORDS = (
    [],
    ["--help"],
    ["--version"],
    ["animate", "--help"],
    ["interpolate", "-h"],
    ["loop", "-h"],
    ["story", "-h"],
    ["batch", "-h"],
)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_help_lists_every_command(cli, words):
    done = cli(*words)
    assert (done.code, done.err) == (0, "")
    listed = re.findall(r"^  (\w+)  +\w", done.out, flags=re.MULTILINE)
    assert {"animate", "interpolate", "loop", "download", "models", "convert", "inspect"} <= set(listed)


def test_the_version_is_the_packages(cli):
    assert cli("--version").out == f"dynamicrafter {dynamicrafter.__version__}\n"


@pytest.mark.parametrize("command", ["animate", "interpolate", "loop", "download", "models", "convert", "inspect"])
def test_every_command_explains_itself(cli, command):
    done = cli(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: dynamicrafter {command} ")
    assert "default: None" not in done.out


def test_an_unknown_command_is_answered_with_the_closest_or_with_all(cli):
    assert cli("animte").errors == ["error: unknown command animte; did you mean animate?"]
    assert cli("--versoin").errors == ["error: unknown option --versoin; did you mean --version?"]
    done = cli("zzz")
    assert done.code == 2
    assert done.err.startswith("error: unknown command zzz; commands are animate, ")


def test_help_and_version_import_nothing_heavy():
    program = (
        "import sys; from dynamicrafter.cli.main import main\n"
        f"assert not any(main(words) for words in {LIGHT_WORDS!r})\n"
        f"print('imported:', *set({HEAVY!r}) & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("words", [["--help"], ["animate", "--help"]])
def test_help_can_be_shown_where_boxes_and_dots_cannot(cli, monkeypatch, encoding, words):
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert cli(*words).code == 0
    assert b"usage: dynamicrafter" in stdout.buffer.getvalue()


def test_a_reader_who_has_read_enough_ends_the_command_without_a_traceback():
    command = f"{sys.executable} -m dynamicrafter.cli animate --help; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=True)
    assert done.stderr in ("0\n", "141\n")  # help may have been written before the reader left


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_reason_to_fail_and_lets_no_file_take_its_place(photo, closed):
    (photo.parent / "job.py").write_text(
        "import os, stat\n"
        "from dynamicrafter.cli.main import main\n"
        f"code = main(['animate', 'photo.png', '-o', 'clip.gif', *{TINY!r}])\n"
        "devices = [stat.S_ISREG(os.fstat(number).st_mode) for number in (1, 2)]\n"
        "open('said', 'w').write(f'{code} {devices}')\n"
    )
    subprocess.run(
        ["bash", "-c", f"{sys.executable} job.py {closed}"], cwd=photo.parent, capture_output=True, check=True
    )
    assert (photo.parent / "said").read_text() == "0 [False, False]"
    assert (photo.parent / "clip.gif").exists()


@pytest.mark.parametrize("words", [["--help"], ["animate", "--help"]])
def test_help_takes_less_than_half_a_second_of_processor_time(words):
    def seconds() -> float:
        before = os.times()
        subprocess.run([sys.executable, "-m", "dynamicrafter.cli", *words], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5
