import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from numbered_clips import write_numbered


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    for index, count in enumerate((20, 40, 60)):
        write_numbered(folder / f"{index}.mp4", count)
        (folder / f"{index}.txt").write_text(f"a man walking {index}")
    (folder / "empty.mp4").touch()
    (folder / "empty.txt").write_text("nothing")
    return folder


def test_check_says_what_a_folder_holds_and_what_would_be_skipped(cli, clips):
    done = cli("data", "check", "clips")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "skipped empty.mp4: is empty; copy or download the clip again.\n"
        "\n"
        f"clips: a folder, root {clips}\n"
        "  listed       4\n"
        "  looked at    4\n"
        "  usable       3, skipped 1\n"
        "  captions     4 of 4; 0 of motion\n"
        "  length       0.67 to 2.00 s, median 1.33, 0.00 h in all; 20 to 60 frames\n"
        "  sizes        64x48 (3)\n"
        "  frames/s     30 (3)\n"
        "  stride       the largest that fits, up to 6: 1 (1), 2 (1), 3 (1)\n"
    )


def test_check_prints_json(cli, clips):
    found = json.loads(cli("data", "check", "clips", "--json").out)
    assert found["usable"] == 3
    assert found["skipped"] == {"empty.mp4": "is empty; copy or download the clip again."}
    assert found["largest_stride"] == {"1": 1, "2": 1, "3": 1}


def test_check_draws_a_contact_sheet(cli, clips):
    done = cli("data", "check", "clips", "--sheet", "sheet.png")
    assert done.code == 0
    assert done.err == f"{clips.parent}/sheet.png: 0.mp4, 1.mp4, 2.mp4, from above\n"
    with Image.open("sheet.png") as sheet:
        assert sheet.size == (3 * 192 + 8, 3 * 120 + 8)


def test_check_ends_with_2_where_no_clip_can_be_used(cli, clips):
    done = cli("data", "check", "clips", "--frames", "100", "--json")
    assert done.code == 2
    assert json.loads(done.out)["usable"] == 0
    assert done.errors == [
        "error: clips: none of 4 clips can be used; 0.mp4: the clip has 20 frames, and 100 at stride 1 need 100."
    ]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["check", "nowhere"], "nowhere does not exist; name a CSV or JSONL file of clips, or a folder of videos."),
        (["check", "clips", "--sheet", "a.jpg"], "sheet must end in .png, got a.jpg; try a.png."),
        (["check", "clips", "--sheet", "no/a.png"], "{here}/no/a.png cannot be written: there is no folder"),
        (["check", "clips", "--limit", "0"], "limit must be 1 or more, got 0; leave it out."),
        (["check", "clips", "--kind", "zip"], "--kind must be one of auto, webvid, table, folder, got 'zip'."),
        (["check"], "PATH is missing; `dynamicrafter data check --help` explains."),
        (["chekc", "clips"], "unknown command data chekc; did you mean check?"),
        (["dance"], "unknown command data dance; commands are check, "),
        (["--chekc"], "unknown option data --chekc;"),
        (["annotate", "list.csv", "-o", "out.csv", "--by", "magic"], "by must be rules, an address (http:// or"),
        (["annotate", "list.csv", "-o", "out.csv", "--by", "http://x/v1"], "model is missing; name the one to ask for"),
        (
            ["annotate", "l.csv", "-o", "o.csv", "--by", "http://x", "--model", "m", "--key-variable", "NO_SUCH_KEY"],
            "the environment variable NO_SUCH_KEY is not set; put the key there.",
        ),
        (["annotate", "list.csv"], "-o is missing; `dynamicrafter data annotate --help` explains."),
        (["annotate", "none.csv", "-o", "out.csv"], "none.csv cannot be read (No such file or directory)"),
    ],
)
def test_mistakes_end_in_one_line(cli, clips, words, line):
    done = cli("data", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {line.format(here=clips.parent)}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [["data"], ["data", "--help"], ["data", "-h"]])
def test_the_group_explains_itself(cli, words):
    done = cli(*words)
    assert done.code == 0
    assert done.out.startswith("usage: dynamicrafter data COMMAND")
    assert "  data check     say what" in done.out
    assert "animate" not in done.out


def test_a_list_is_annotated_and_then_filtered(cli, clips):
    with (clips / "list.csv").open("w", newline="") as file:
        rows = [("0.mp4", "a man walking"), ("1.mp4", "a bowl of fruit"), ("2.mp4", "zoom in on a map")]
        csv.writer(file).writerows([("path", "caption"), *rows])
    done = cli("data", "annotate", "clips/list.csv", "-o", "clips/motion.csv")
    assert (done.code, done.out, done.err) == (0, "clips/motion.csv\n", "3 rows; 0 without an answer\n")
    words = ("--min-confidence", "50", "--sources", "camera, person", "--json")
    found = json.loads(cli("data", "check", "clips/motion.csv", *words).out)
    assert (found["usable"], found["motion_captions"], found["list"]["unsure"]) == (2, 2, 1)
    assert cli("data", "check", "clips/motion.csv", "--sources", "camera").out.splitlines()[1:5] == [
        "  listed       3, 0 left out as unsure, 2 by what moves",
        "  confidence   0 to 95 in all that is listed",
        "  looked at    1",
        "  usable       1, skipped 0",
    ]
    elsewhere = cli("data", "annotate", "clips/list.csv", "-o", "motion.csv")
    assert f"paths start from another folder than {clips.parent}/motion.csv; use it with --root clips" in elsewhere.err


def test_clips_are_judged_for_a_recipe(cli, clips):
    judged = cli("data", "check", clips, "--recipe", "finetune-bundled", "--captions", "optional")
    assert judged.code == 0, judged.err
    assert "For finetune-bundled:" in judged.out
    assert "8 to 24 are known, 12 is usual" in judged.out
    assert "128x128, for which" in judged.out
    told = json.loads(cli("data", "check", clips, "--recipe", "finetune-bundled", "--json").out)["recipe"]
    assert told["clips"]
    assert cli("data", "check", clips, "--recipe", "nothing").code == 2


def test_neither_command_waits_for_torch(clips):
    for words in (["check", str(clips)], ["check", str(clips), "--recipe", "lora-bundled"], ["annotate", "--help"]):
        script = (
            "import sys\nfrom dynamicrafter.cli.main import main\n"
            f"assert main(['data', *{words!r}]) == 0\nassert 'torch' not in sys.modules\n"
        )
        assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def test_ctrl_c_keeps_what_was_answered(tmp_path):
    with (tmp_path / "list.csv").open("w") as file:
        file.write("caption\n" + "a man walking on the beach while birds fly over the sea\n" * 300_000)
    journal = tmp_path / "out.csv.progress.jsonl"
    command = [sys.executable, "-m", "dynamicrafter.cli", "data", "annotate", "list.csv", "-o", "out.csv"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not journal.exists() or journal.stat().st_size < 300_000):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.startswith("stopped after ")
    assert said.endswith(" rows; run the same command to go on\n")
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv", journal.name}
