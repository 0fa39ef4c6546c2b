import csv
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from dynamicrafter.data.annotate import ASKED, RULES, Annotator, annotate
from dynamicrafter.data.language_models import ask_address, ask_folder
from dynamicrafter.data.motions import INSTRUCTIONS
from dynamicrafter.errors import InputError

CAPTIONS = ["a man walking home", "a bowl, of fruit", 'the "camera" pans left', "zoom in", "ducks\nswimming"] * 5
GOOD = {"dynamic_confidence": 80, "dynamic_wording": "walking", "dynamic_source_category": "person"}


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.csv"
    with path.open("w", newline="") as file:
        rows = [(f"{index}.mp4", caption) for index, caption in enumerate(CAPTIONS)]
        csv.writer(file).writerows([("path", "caption"), *rows])
    return path


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def moving(caption):
    """An answer that fits any caption of one word or more."""
    return json.dumps(GOOD | {"dynamic_wording": caption.split()[0]})


def test_rules_add_three_columns_and_keep_the_rest(listed, tmp_path):
    report = annotate(listed, tmp_path / "out.csv", RULES)
    rows = read(tmp_path / "out.csv")
    assert [(row["path"], row["caption"]) for row in rows] == [(f"{i}.mp4", c) for i, c in enumerate(CAPTIONS)]
    assert [row["dynamic_source_category"] for row in rows[:5]] == ["person", "none", "camera", "camera", "animal"]
    assert rows[0]["dynamic_wording"] == "man walking home"
    assert (report.rows, report.resumed, report.unanswered) == (25, 0, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv", "out.csv"}


def test_bad_answers_are_asked_for_again_counted_and_never_written(listed, tmp_path):
    asked = []

    def ask(captions, before):
        asked.extend((caption, before) for caption in captions)
        return ["rubbish" if "fruit" in c or ("zoom" in c and before == 0) else moving(c) for c in captions]

    report = annotate(listed, tmp_path / "out.csv", Annotator("test", 4, ask))
    rows = read(tmp_path / "out.csv")
    assert "rubbish" not in (tmp_path / "out.csv").read_text()
    assert [row["dynamic_confidence"] for row in rows[:5]] == ["80", "", "80", "80", "80"]
    assert dict(report.bad_answers) == {"no JSON": 5 * ASKED + 5}
    assert report.unanswered == 5
    assert [before for caption, before in asked if "fruit" in caption] == [0, 1, 2] * 5
    assert [before for caption, before in asked if "zoom" in caption] == [0, 1] * 5


class StopError(Exception):
    pass


def stopping_after(count, asked):
    def ask(captions, _before):
        if len(asked) >= count:
            raise StopError
        asked.extend(captions)
        return [moving(caption) for caption in captions]

    return Annotator("test", 2, ask)


def test_a_run_goes_on_where_the_last_one_stopped(listed, tmp_path):
    first, second = [], []
    with pytest.raises(StopError):
        annotate(listed, tmp_path / "out.csv", stopping_after(7, first))
    assert not (tmp_path / "out.csv").exists()
    journal = tmp_path / "out.csv.progress.jsonl"
    journal.write_bytes(journal.read_bytes()[:-9])  # killed in the middle of its last line
    report = annotate(listed, tmp_path / "out.csv", stopping_after(99, second))
    assert (report.rows, report.resumed, report.unanswered) == (25, 7, 0)
    assert len(first) == 8
    assert len(second) == 18
    assert [row["caption"] for row in read(tmp_path / "out.csv")] == CAPTIONS
    assert not journal.exists()


def test_a_run_that_answered_nothing_leaves_nothing(listed, tmp_path):
    with pytest.raises(StopError):
        annotate(listed, tmp_path / "out.csv", stopping_after(0, []))
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv"}


def test_a_journal_of_another_list_or_annotator_is_neither_used_nor_lost(listed, tmp_path):
    with pytest.raises(StopError):
        annotate(listed, tmp_path / "out.csv", stopping_after(4, []))
    journal = tmp_path / "out.csv.progress.jsonl"
    before = journal.read_bytes()
    with pytest.raises(InputError, match="was begun by test, not rules; finish with that, or delete it"):
        annotate(listed, tmp_path / "out.csv", RULES)
    other = tmp_path / "other.csv"
    other.write_text("path,caption\na.mp4,something else\n")
    with pytest.raises(InputError, match="is of another list, at row 1; delete it, or name another output"):
        annotate(other, tmp_path / "out.csv", stopping_after(9, []))
    assert journal.read_bytes() == before
    with journal.open("a") as file:
        file.write('{"key": 1}\n')
    with pytest.raises(InputError, match="line 6 is damaged; delete the file to begin anew"):
        annotate(listed, tmp_path / "out.csv", stopping_after(9, []))


def test_two_runs_do_not_write_one_journal(listed, tmp_path):
    def ask(captions, _before):
        with pytest.raises(InputError, match="is being written by another run; wait for it"):
            annotate(listed, tmp_path / "out.csv", Annotator("test", 99, lambda *_: []))
        return [moving(caption) for caption in captions]

    assert annotate(listed, tmp_path / "out.csv", Annotator("test", 99, ask)).rows == 25


def test_a_killed_process_leaves_a_journal_that_the_next_one_continues(listed, tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom dynamicrafter.data.annotate import Annotator, annotate\n"
        "def ask(captions, before):\n    time.sleep(0.02)\n    return ['x'] * len(captions)\n"
        "annotate(Path(sys.argv[1]), Path(sys.argv[2]), Annotator('test', 1, ask))\n"
    )
    target = tmp_path / "out.csv"
    journal = tmp_path / "out.csv.progress.jsonl"
    process = subprocess.Popen([sys.executable, "-c", script, str(listed), str(target)])
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 6):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not target.exists()
    asked = []
    report = annotate(listed, target, stopping_after(99, asked))
    assert 5 <= report.resumed < 25
    assert report.resumed + len(asked) == 25
    assert report.unanswered == report.resumed


@pytest.mark.parametrize(
    ("name", "content", "out", "said"),
    [
        ("l.csv", "path,words\na,b\n", "out.csv", "has no column caption or text or prompt, only path, words"),
        ("l.csv", "caption,dynamic_wording\na,b\n", "out.csv", "has a column dynamic_wording already"),
        ("l.jsonl", '{"caption": "a"}', "out.csv", "the list must end in .csv or .tsv, got"),
        ("l.csv", "caption\na\n", "out.parquet", "the output must end in .csv or .tsv"),
        ("l.csv", "caption\na\n", "l.csv", "would replace the list that it is made of"),
        ("l.csv", "caption\na\n", "nowhere/out.csv", "there is no folder"),
        ("l.csv", None, "out.csv", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(tmp_path, name, content, out, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        annotate(tmp_path / name, tmp_path / out, Annotator("test", 9, lambda *_: pytest.fail("asked")))


class FakeServer(http.server.ThreadingHTTPServer):
    """Chat completions; `reply` makes (status, headers, body) of a request's body."""

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), FakeHandler)
        self.reply, self.asked = reply, []

    def handle_error(self, *_):  # who asked may be gone
        pass


class FakeHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization")))
        status, headers, content = self.server.reply(body)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(reply):
    with FakeServer(reply) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()


def completion(content):
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()


def echo(body):
    caption = body["messages"][1]["content"].removeprefix("Caption: ")
    return completion(moving(caption))


def test_a_server_is_asked_as_openai_asks(listed, tmp_path):
    with serving(echo) as (server, address):
        ask = ask_address(address + "/", model="little", key="secret", workers=3)
        report = annotate(listed, tmp_path / "out.csv", Annotator("x", 12, ask))
    assert (report.rows, report.unanswered) == (25, 0)
    assert [row["dynamic_wording"] for row in read(tmp_path / "out.csv")] == [c.split()[0] for c in CAPTIONS]
    assert len(server.asked) == 25
    path, body, key = server.asked[0]
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", "little", 0)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["messages"][0]["content"] == INSTRUCTIONS


def test_no_key_is_sent_unasked(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving(echo) as (server, address):
        ask_address(address, model="m")(["a b"], 0)
    assert server.asked[0][2] is None


def test_a_server_that_fails_for_a_while_is_asked_again():
    with serving(lambda body: echo(body) if len(server.asked) > 2 else (503, {}, b"busy")) as (server, address):
        assert json.loads(ask_address(address, model="m", pause=0.001)(["swim"], 0)[0])["dynamic_wording"] == "swim"
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("reply", "asked", "said"),
    [
        ((401, {}, b'{"error": "bad\nkey"}'), 1, r"refused \(status 401 Unauthorized: \{\"error\": \"bad key\"\}\)"),
        ((500, {}, b""), 5, r"could not be asked, 5 times \(status 500"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), 1, r"refused \(status 302"),
        ((200, {}, b"<html>"), 1, "does not answer as chat completions do"),
        ((200, {}, b'{"choices": []}'), 1, "does not answer as chat completions do"),
    ],
)
def test_a_server_that_is_none_is_an_error_in_one_line(reply, asked, said):
    with serving(lambda _: reply) as (server, address):
        with pytest.raises(InputError, match=said) as caught:
            ask_address(address, model="m", pause=0.001)(["swim"], 0)
        assert len(server.asked) == asked
    assert "\n" not in str(caught.value)


def test_an_address_where_nobody_listens_is_an_error_in_one_line():
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/v1/chat/completions could not be asked, 5 times"):
        ask_address("http://127.0.0.1:1/v1", model="m", pause=0.001)(["swim"], 0)


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder with a small model that has learned nothing."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(vocabulary), n_positions=2048, n_embd=48, n_layer=2, n_head=2, eos_token_id=0, bos_token_id=0
        )
    )
    model.save_pretrained(folder)
    return folder


def test_a_model_in_a_folder_that_babbles_is_asked_and_never_believed(language_model, tmp_path):
    (tmp_path / "l.csv").write_text("caption\na man walking\nzoom in\n")
    ask = ask_folder(language_model)
    report = annotate(tmp_path / "l.csv", tmp_path / "out.csv", Annotator("x", 2, ask))
    assert (report.rows, report.unanswered) == (2, 2)
    assert sum(report.bad_answers.values()) == 2 * ASKED
    assert {row["dynamic_wording"] for row in read(tmp_path / "out.csv")} == {""}
    first, again, drawn = ask(["zoom in"], 0), ask(["zoom in"], 0), ask(["zoom in"], 1)
    assert first == again != drawn


def test_answers_of_a_model_in_a_folder_are_what_follows_each_question(language_model, monkeypatch):
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(language_model)
    asked = []

    def generate(_self, *, input_ids, attention_mask, **_):
        assert attention_mask[:, -1].all()  # nothing stands between a question and its answer
        texts = [tokenizer.decode(row[kept.bool()]) for row, kept in zip(input_ids, attention_mask, strict=True)]
        asked.extend(texts)
        answers = tokenizer([text.splitlines()[-1][9:] for text in texts], padding=False)["input_ids"]
        longest = max(map(len, answers))
        padded = [row + [tokenizer.eos_token_id] * (longest - len(row)) for row in answers]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    monkeypatch.setattr(GPT2LMHeadModel, "generate", generate)
    assert ask_folder(language_model)(["zoom in", "a man walking home"], 0) == ["zoom in", "a man walking home"]
    assert all(text.startswith(INSTRUCTIONS) for text in asked)


def test_a_folder_without_a_model_is_an_error_in_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no text-generation model of transformers") as caught:
        ask_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_interrupt_does_not_wait_for_a_slow_server(listed):
    asked, go_on = threading.Event(), threading.Event()

    def reply(body):
        asked.set()
        go_on.wait(60)
        return echo(body)

    with serving(reply) as (_, address):
        words = ["data", "annotate", "list.csv", "-o", "out.csv", "--by", address, "--model", "m"]
        process = subprocess.Popen(
            [sys.executable, "-m", "dynamicrafter.cli", *words], cwd=listed.parent, stderr=subprocess.PIPE, text=True
        )
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        said = process.communicate(timeout=50)[1]
        assert time.monotonic() - began < 20
        go_on.set()
    assert (process.returncode, said) == (130, "stopped; nothing was written\n")
    assert [path.name for path in listed.parent.iterdir()] == ["list.csv"]
