"""Language models as one kind of function: captions in, what they answered out."""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dynamicrafter.data.motions import INSTRUCTIONS, question
from dynamicrafter.errors import InputError

# Takes captions and how often they were asked about before; gives as many answers.
Ask = Callable[[Sequence[str], int], list[str]]

_MOST_TOKENS = 120  # of an answer; three short fields
_LARGEST_ANSWER = 1 << 20  # bytes of a response
_TRIES = 5  # of a request that the server or the line fails
_LONGEST_WAIT = 30.0  # seconds between two tries
_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504))  # statuses that time may cure


def ask_address(
    address: str, *, model: str, key: str | None = None, workers: int = 4, timeout: float = 120.0, pause: float = 1.0
) -> Ask:
    """Ask a server that speaks OpenAI's chat completions.

    Args:
        address: such as http://127.0.0.1:8000/v1.
        model: its name there.
        key: sent as bearer token, to this address alone: redirections are refused.
        workers: requests at a time.
        timeout: seconds a request may take.
        pause: seconds before the second try of a request that failed; each further one waits twice as long.

    Raises:
        InputError: (when asked) the server can't be reached, refuses, or answers in another form.
    """
    url = address.rstrip("/")
    url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    opener = urllib.request.build_opener(_NoRedirection)

    def ask_one(caption: str, asked: int) -> str:
        messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question(caption)}]
        # At temperature 0 the same question would get the same answer.
        body = {"model": model, "messages": messages, "max_tokens": _MOST_TOKENS, "temperature": 0.7 if asked else 0}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        return _content(_post(opener, request, timeout, pause), url)

    def ask(captions: Sequence[str], asked: int) -> list[str]:
        return _in_threads(lambda caption: ask_one(caption, asked), captions, workers)

    return ask


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """A redirection would carry the key elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _post(
    opener: urllib.request.OpenerDirector, request: urllib.request.Request, timeout: float, pause: float
) -> bytes:
    url, reason = request.full_url, ""
    for tried in range(1, _TRIES + 1):
        try:
            with opener.open(request, timeout=timeout) as response:
                return response.read(_LARGEST_ANSWER)
        except urllib.error.HTTPError as error:
            reason, passing = f"status {error.code} {error.reason}", error.code in _PASSING
            if not passing:
                said = " ".join(error.read(300).decode(errors="replace").split())
                raise InputError(f"{url} refused ({reason}: {said}); check address, model and key.") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if tried < _TRIES:
            time.sleep(min(pause * 2 ** (tried - 1), _LONGEST_WAIT))
    raise InputError(f"{url} could not be asked, {_TRIES} times ({reason}); run the same command to go on later.")


def _content(response: bytes, url: str) -> str:
    try:
        content = json.loads(response)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise InputError(f"{url} does not answer as chat completions do; name an OpenAI-compatible address.") from None
    return content if isinstance(content, str) else ""


def _in_threads(work: Callable[[str], str], items: Sequence[str], count: int) -> list[str]:
    """Work on items side by side, in threads that nothing waits for: an interrupt needn't sit out a slow server."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, str | BaseException]] = queue.SimpleQueue()
    for index in range(len(items)):
        waiting.put(index)

    def go() -> None:
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((index, work(items[index])))
            except BaseException as error:
                done.put((index, error))

    for _ in range(min(count, len(items))):
        threading.Thread(target=go, daemon=True).start()
    answers = [""] * len(items)
    for _ in items:
        index, answer = done.get()
        if isinstance(answer, BaseException):
            while not waiting.empty():  # the others needn't begin what nobody will read
                waiting.get_nowait()
            raise answer
        answers[index] = answer
    return answers


def ask_folder(folder: Path, *, device: str = "cpu") -> Ask:
    """Ask a text-generation model that lies in a folder, as `save_pretrained` of transformers leaves it.

    Nothing is downloaded, and no code from the folder runs. Answers are greedy the first time, and drawn after that.

    Raises:
        InputError: the folder holds no such model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype="auto"
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} holds no text-generation model of transformers ({reason}).") from error
    model.to(device).eval()
    tokenizer.padding_side = "left"  # so that answers follow their questions at once
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

    def ask(captions: Sequence[str], asked: int) -> list[str]:
        texts = [_prompt(tokenizer, caption) for caption in captions]
        # A template has written the special tokens already.
        plain = tokenizer.chat_template is None
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=plain).to(device)
        drawn = {"do_sample": True, "temperature": 0.7} if asked else {"do_sample": False}
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(asked)
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=_MOST_TOKENS,
                pad_token_id=tokenizer.pad_token_id,
                **drawn,
            )
        return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return ask


def _prompt(tokenizer: Any, caption: str) -> str:
    if tokenizer.chat_template is None:
        return f"{INSTRUCTIONS}\n{question(caption)}\n"
    # One message: some templates know no system's part.
    messages = [{"role": "user", "content": f"{INSTRUCTIONS}\n\n{question(caption)}"}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
