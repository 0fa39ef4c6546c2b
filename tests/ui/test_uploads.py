"""Only a visitor's own uploads are read, whatever is named in a picture's place, through every endpoint."""

import functools
import http.server
import json
import secrets
import threading
from urllib.parse import quote

import httpx
import pytest
from PIL import Image

from ui_calls import body_with, call, post, streamed, upload
from ui_site import QUICK, ROCKET

pytestmark = pytest.mark.xdist_group("page")

SENTENCE = "picture must be a file that you sent in this visit and that is still kept; choose it again."
META = {"meta": {"_type": "gradio.FileData"}}


@functools.cache
def endpoints(url):
    """Every function of the page that takes a picture or another file, and which of its inputs do.

    Returns:
        By name: number, API name, inputs as they stand when the page opens, and the places of files.
    """
    config = httpx.get(f"{url}config", timeout=60).json()
    parts = {part["id"]: part for part in config["components"]}
    found = {}
    for function in config["dependencies"]:
        inputs = [parts[number] for number in function["inputs"]]
        places = [place for place, part in enumerate(inputs) if part["type"] in ("image", "file", "audio", "video")]
        if places:
            name = function["api_name"] if function["api_visibility"] == "public" else f"page-{len(found)}"
            values = [part["props"].get("value") for part in inputs]
            found[name] = (function["id"], function["api_name"], values, places)
    return found


NAMES = ["animate", "interpolate", "loop", "page-0", "page-1", "page-2", "page-3"]  # a tab each: Story is the last
TELLING = ["absolute", "missing", "relative", "link", "foreign upload", "file address", "web address"]
DOORS = ["call", "call/v2", "queue/join", "run/predict"]
CASES = [(door, name) for door in DOORS for name in NAMES if not (door.startswith("call") and name[:4] == "page")]


def test_the_endpoints_below_are_all_that_take_a_file(site):
    found = endpoints(site.url)
    assert sorted(found) == sorted(NAMES)
    assert [len(found[f"page-{number}"][3]) for number in range(4)] == [1, 6, 1, 6]


def ask(client, door, name, *values):
    """Name things in the places of an endpoint's pictures; what is answered, whole."""
    number, api_name, data, places = endpoints(str(client.base_url))[name]
    data = list(data)
    for place, value in zip(places, values * len(places), strict=False):
        data[place] = value
    if not name.startswith("page"):
        data[len(places) :] = ["the camera pans left", QUICK, "automatic", "npy"]
    session = secrets.token_hex(6)
    message = {"data": data, "fn_index": number, "session_hash": session}
    stream = f"/gradio_api/queue/data?session_hash={session}"
    if door == "call":
        message, stream = {"data": data}, None
    elif door == "call/v2":
        names = ["first", "last"] if name == "interpolate" else ["image"]
        message, stream = dict(zip([*names, "prompt", "options", "model", "format"], data, strict=True)), None
    path = f"{door}/{api_name}" if door.startswith("call") else door
    called = post(client, path, json.dumps(message))
    if called.status_code != 200 or door == "run/predict":
        return called.text
    return streamed(client, stream or f"/gradio_api/call/{api_name}/{called.json()['event_id']}")


@pytest.fixture
def named(site, visitor, tmp_path):
    """What a visitor who means harm may name, by what is wrong with it; some of it is there, and some is not."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (70, 60), "blue").save(secret)
    secret.chmod(0o600)
    foreign = upload(visitor())
    folder = site.service.folder
    link = folder / "uploads" / secrets.token_hex(8)
    link.symlink_to(secret)
    result = folder / "results" / "x.png"
    result.parent.mkdir(exist_ok=True)
    result.write_bytes(secret.read_bytes())
    hits = []

    class Inside(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(secret.read_bytes())

        def log_message(self, *_):
            pass

    inside = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=inside.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{inside.server_port}/x.png"
    up = "/".join([".."] * 20)
    yield (
        {
            "absolute": secret,
            "missing": tmp_path / "missing.png",
            "no picture": "/etc/shadow",
            "folder": "/root",
            "relative": f"{up}{secret}",
            "through the uploads": f"{folder}/uploads/../../{tmp_path.name}/secret.png",
            "relative to the server": "examples/rocket.jpg",
            "link": link,
            "result": result,
            "foreign upload": foreign,
            "foreign upload, roundabout": f"/etc/../{foreign}",
            "file address": f"file://{secret}",
            "web address": address,
            "web address of the server itself": f"{site.url}gradio_api/file={foreign}",
            "nothing": "",
            "null byte": f"{foreign}\0.png",
            "unnamable": "\ud800",
            "device": "/dev/zero",
        },
        hits,
    )
    inside.shutdown()


def forms(place):
    """The ways to write one place as a picture."""
    yield {"path": place}
    yield {"path": place, **META}
    yield {"path": place, "url": place, "orig_name": "x.png", "mime_type": "image/png", "is_stream": False, **META}
    yield {"path": None, "url": place, **META}
    yield {"url": place}
    yield {"path": {"path": place, **META}, **META}
    yield {"path": [place], **META}
    yield {"path": place, "is_stream": True, **META}
    yield {"image": {"path": place, **META}, **META}
    yield [{"path": place, **META}]
    yield place


@pytest.mark.parametrize(("door", "name"), CASES)
def test_whatever_else_is_named_gets_one_sentence_and_is_not_touched(site, visitor, named, door, name):
    places, hits = named
    client = visitor()
    before, results = site.session_files, len(site.service.results)
    answers = {}
    for kind, place in places.items():
        for form, value in enumerate(forms(str(place))):
            # One endpoint is asked for everything in every form, the others for what differs most: it takes long.
            if (door, name) == CASES[0] or (kind in TELLING and form < 2):
                answers[kind, form] = ask(client, door, name, value)
    told = {where: SENTENCE.lower() in answer.lower() for where, answer in answers.items()}
    assert all(told.values()), {where: answers[where] for where, good in told.items() if not good}
    assert hits == []
    assert site.session_files == before
    assert len(site.service.results) == results
    assert site.service.queue.counts == (0, 0)


@pytest.mark.parametrize(
    ("door", "name", "form"),
    [(door, "animate", 0) for door in DOORS] + [("call", "animate", 1), ("queue/join", "interpolate", 2)],
)
def test_a_visitors_own_upload_becomes_a_clip(visitor, door, name, form):
    client = visitor()
    own = list(forms(upload(client)))[form]
    if form == 2:
        own["url"] = f"{client.base_url}gradio_api/file={own['path']}"  # as the page sends it
    assert "the-camera-pans-left-7.npy" in ask(client, door, name, own)


def test_a_caller_without_a_cookie_has_no_uploads(site, visitor):
    own = upload(visitor())
    with httpx.Client(base_url=site.url, timeout=60) as client:
        sent = client.post("/gradio_api/upload", files={"files": ("x.png", ROCKET.read_bytes())})
        [path] = sent.json()
        for place in (own, path):
            client.cookies.clear()
            assert SENTENCE in call(client, body_with({"path": place}))


def test_a_program_that_keeps_its_cookies_uses_what_it_uploaded_first(site):
    with httpx.Client(base_url=site.url, timeout=60) as client:
        [path] = client.post("/gradio_api/upload", files={"files": ("x.jpg", ROCKET.read_bytes())}).json()
        assert ".npy" in ask(client, "call", "animate", {"path": path})


def test_the_same_bytes_sent_by_two_are_both_ones_own_and_nobody_elses(visitor):
    one, two, third = visitor(), visitor(), visitor()
    for client in (one, two):
        [path] = client.post("/gradio_api/upload", files={"files": ("same.jpg", ROCKET.read_bytes())}).json()
    for client in (one, two):
        assert ".npy" in ask(client, "call", "animate", {"path": path})
    assert SENTENCE in ask(third, "call", "animate", {"path": path})


def test_files_are_given_to_their_visit_alone_however_their_place_is_written(site, visitor):
    mine, theirs = visitor(), visitor()
    path = upload(mine)
    assert mine.get(f"/gradio_api/file={quote(path)}").status_code == 200
    folder, _, name = path.rpartition("/")
    ways = [
        path,
        f"{folder}/./{name}",
        f"{folder}//{name}",
        f"/tmp/..{path}",
        f"{folder}/../{folder.rpartition('/')[2]}/{name}",
    ]
    for way in ways:
        address = f"{site.url}gradio_api/file={quote(way, safe='')}"
        assert theirs.get(address).status_code == 404, way
        assert httpx.get(address).status_code == 404, way


def test_a_body_that_is_no_json_is_refused_before_gradio_reads_it(visitor):
    client = visitor()
    for body in (b"{", b"[" * 100_000, b'{"data": ' + b"9" * 5_000 + b"}", b"data=1"):
        assert post(client, "queue/join", body).status_code == 400, body[:20]


def test_another_encoding_of_the_body_hides_nothing(visitor, named):
    places, _ = named
    client = visitor()
    assert SENTENCE in call(client, body_with({"path": str(places["absolute"])}).encode("utf-16"))


def test_a_name_said_twice_hides_nothing(visitor, named):
    places, _ = named
    client = visitor()
    own = upload(client)
    picture = f'{{"path": {json.dumps(own)}, "path": {json.dumps(str(places["absolute"]))}}}'
    assert SENTENCE in call(client, body_with("HERE").replace('"HERE"', picture))
