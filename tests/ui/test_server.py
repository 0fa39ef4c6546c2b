"""The server from the network's side: what it gives, and what it doesn't."""

import json
import secrets

import httpx
import pytest

from dynamicrafter.ui.guard import COOKIE
from dynamicrafter.ui.settings import ServerSettings
from ui_site import QUICK, ROCKET, start_site

pytestmark = pytest.mark.xdist_group("page")


def upload(client, content=None, name="photo.jpg"):
    files = {"files": (name, ROCKET.read_bytes() if content is None else content)}
    return client.post("/gradio_api/upload", files=files)


def run_once(site, owner):
    from dynamicrafter import AnimateOptions
    from dynamicrafter.ui.requests import Upload

    options = AnimateOptions.from_dict(QUICK)
    task = site.service.submit("animate", [Upload(path=ROCKET, name="r.jpg")], options=options, owner=owner)
    task.watchers = 1
    assert task.finished.wait(60)
    return task.result


def test_it_is_healthy_and_says_how_much_waits(visitor):
    said = visitor().get("/healthz").json()
    assert (said["status"], said["waiting"], said["running"]) == ("ok", 0, 0)


def test_a_visit_is_an_unguessable_cookie_that_scripts_cannot_read(site):
    answers = [httpx.get(site.url) for _ in range(2)]
    cookies = [answer.headers["set-cookie"] for answer in answers]
    assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)
    assert len({answer.cookies[COOKIE] for answer in answers}) == 2
    assert all(len(answer.cookies[COOKIE]) == 43 for answer in answers)


def test_a_clip_is_given_to_its_visit_alone(site, visitor):
    mine, theirs = visitor(), visitor()
    result = run_once(site, f"visit {mine.cookies[COOKIE]}")
    address = f"/results/{result.token}/mp4"
    assert mine.get(address).headers["content-type"] == "video/mp4"
    assert mine.get(address, headers={"Range": "bytes=0-9"}).status_code == 206
    assert "attachment" in mine.get(f"/results/{result.token}/gif").headers["content-disposition"]
    assert theirs.get(address).status_code == 404
    assert httpx.get(f"{site.url}results/{result.token}/mp4").status_code == 404
    assert mine.get(f"/results/{result.token}/exe").status_code == 404
    assert mine.get(f"/results/{secrets.token_urlsafe(24)}/mp4").status_code == 404


def test_no_file_of_the_server_is_served(site, visitor):
    client = visitor()
    result = run_once(site, f"visit {client.cookies[COOKIE]}")
    secret = site.service.folder / "secret.txt"
    secret.write_text("secret")
    kept = result.folder / "clip.npy"
    places = ["/etc/passwd", str(secret), str(kept), f"{site.service.uploads.folder}/../secret.txt", str(ROCKET)]
    for place in places:
        for door in ("/gradio_api/file=", "/gradio_api/file/", "/file="):
            answer = client.get(f"{door}{place}")
            assert answer.status_code in (403, 404), (door, place)
            assert answer.content != b"secret"


def test_an_upload_is_given_to_its_visit_alone(visitor):
    mine, theirs = visitor(), visitor()
    [path] = upload(mine, secrets.token_bytes(100)).json()
    assert mine.get(f"/gradio_api/file={path}").status_code == 200
    assert theirs.get(f"/gradio_api/file={path}").status_code == 404


def test_a_stream_is_given_to_the_visit_that_opened_it_alone(visitor):
    mine, theirs = visitor(), visitor()
    session = secrets.token_hex(8)
    for client, status in ((mine, 200), (theirs, 404)):
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
            assert answer.status_code == status


@pytest.mark.parametrize(
    "door",
    [
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/file=https://example.org/x.png",
        "/gradio_api/file=http://127.0.0.1:1/x.png",
        "/monitoring",
        "/gradio_api/vibe-code/",
        "/docs",
        "/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
    ],
)
def test_doors_that_the_page_does_not_need_are_shut(visitor, door):
    assert visitor().get(door).status_code == 404


def _finished(client, session):
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        return next(line for line in answer.iter_lines() if "process_completed" in line)


def test_too_large_an_upload_and_message_are_refused(site, visitor):
    client = visitor()
    assert upload(client, b"x" * 2_100_000).status_code == 413
    assert client.post("/gradio_api/queue/join", content=b"x" * 1_100_000).status_code == 413

    def chunks():
        for _ in range(30):
            yield b"x" * 100_000

    with pytest.raises(httpx.HTTPError):
        client.post("/gradio_api/queue/join", content=chunks()).raise_for_status()


def test_another_page_cannot_send_requests_here(visitor):
    client = visitor()
    body = json.dumps({"data": [], "fn_index": 0, "session_hash": "x"})
    foreign = {"origin": "https://example.org", "content-type": "text/plain"}
    assert client.post("/gradio_api/queue/join", content=body, headers=foreign).status_code == 403
    assert client.get("/", headers={"host": "example.org"}).status_code == 403
    assert client.get("/").headers["x-frame-options"] == "DENY"
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_with_users_nothing_but_health_is_open_before_login(site):
    locked, end = start_site(
        ServerSettings(port=0), users={"ann": "correct horse"}, folder=site.service.folder / "locked"
    )
    try:
        client = httpx.Client(base_url=locked.url, timeout=60)
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200
        for door in ("/config", "/gradio_api/info", "/gradio_api/queue/data?session_hash=x"):
            assert client.get(door).status_code == 401
        assert upload(client).status_code == 401
        wrong = client.post("/login", data={"username": "ann", "password": "guess"})
        assert wrong.status_code == 400
        right = client.post("/login", data={"username": "ann", "password": "correct horse"})
        assert right.status_code == 200
        assert client.get("/config").status_code == 200
    finally:
        end()
