"""The log says who did what, and nothing that lets anybody in."""

import logging

import httpx
import pytest

from dynamicrafter.ui import log
from dynamicrafter.ui.guard import COOKIE
from dynamicrafter.ui.settings import ServerSettings
from ui_calls import body_with, call, upload
from ui_site import start_site

pytestmark = pytest.mark.xdist_group("page")


def test_it_has_visits_addresses_tasks_and_refusals_and_no_secrets(site, visitor, caplog):
    caplog.set_level(logging.INFO, logger="dynamicrafter.ui")
    client = visitor()
    assert ".npy" in call(client, body_with({"path": upload(client)}))
    call(client, body_with({"path": "/etc/passwd\n2026-01-01 forged"}))
    client.get("/gradio_api/proxy=http://127.0.0.1/")
    told = caplog.text
    visit = log.pseudonym(f"visit {client.cookies[COOKIE]}")
    for line in (
        f"{visit} from 127.0.0.1: a visit begins",
        f"{visit} from 127.0.0.1: task ",
        ", animate by a program",
        "refused a file (not the visit's own: '/etc/passwd\\n2026-01-01 forged')",
        "refused GET /gradio_api/proxy=http://127.0.0.1/ (404, there is nothing here)",
    ):
        assert line in told, line
    assert f"{visit}: task " in told
    assert " done after " in told
    assert "\n2026-01-01" not in told
    assert client.cookies[COOKIE] not in told
    assert "the camera pans left" not in told


def test_it_has_logins_with_names_and_without_passwords(site, caplog):
    caplog.set_level(logging.INFO, logger="dynamicrafter.ui")
    locked, end = start_site(
        ServerSettings(port=0), users={"ann": "correct horse"}, folder=site.service.folder / "log-in"
    )
    try:
        client = httpx.Client(base_url=locked.url, timeout=60)
        client.post("/login", data={"username": "ann\x1b[2J", "password": "my secret guess"})
        client.post("/login", data={"username": "ann", "password": "correct horse"})
    finally:
        end()
    assert "from 127.0.0.1: refused login as ann\\x1b[2J (wrong name or password)" in caplog.text
    assert "from 127.0.0.1: login as ann" in caplog.text
    assert "my secret guess" not in caplog.text
    assert "correct horse" not in caplog.text


def test_shown_each_line_begins_with_the_time(capsys):
    with log.shown():
        log.said("hello")
    said = capsys.readouterr().err
    assert said.endswith(" nobody in particular: hello\n")
    assert said[:2] == "20"
    assert said[10] == " "
