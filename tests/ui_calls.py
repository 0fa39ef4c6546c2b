"""Requests to the page, as programs send them."""

import io
import json
import secrets

from PIL import Image

from ui_site import QUICK


def upload(client, color="red", name="photo.png"):
    """Send a picture that nobody else has; where the server says that it put it."""
    picture = io.BytesIO()
    Image.new("RGB", (70, 60), color).save(picture, "png")
    content = picture.getvalue() + secrets.token_bytes(8)
    [path] = client.post("/gradio_api/upload", files={"files": (name, content)}).json()
    return path


def body_with(picture):
    return json.dumps({"data": [picture, "the camera pans left", QUICK, "automatic", "npy"]})


def call(client, body):
    """What `animate` answers to a body."""
    called = post(client, "call/animate", body)
    assert called.status_code == 200
    return streamed(client, f"/gradio_api/call/animate/{called.json()['event_id']}")


def post(client, path, body):
    return client.post(f"/gradio_api/{path}", content=body, headers={"content-type": "application/json"})


def streamed(client, address):
    lines = []
    with client.stream("GET", address) as answer:
        for line in answer.iter_lines():
            lines.append(line)
            if "process_completed" in line or (lines[-2:-1] in (["event: error"], ["event: complete"])):
                break
    return "\n".join(lines)
