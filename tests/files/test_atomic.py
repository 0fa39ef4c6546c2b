"""Errors of the disk in one line, whichever library met them."""

import errno
import os

import pytest
from safetensors import SafetensorError

from dynamicrafter.errors import OutputError
from dynamicrafter.files import atomic
from dynamicrafter.files.atomic import is_disk_full, one_line_errors


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 2432 vs 2326"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_a_full_disk_is_named_whichever_library_meets_it(tmp_path, monkeypatch, error):
    monkeypatch.setattr(atomic, "_SCARCE", 1 << 62)  # so that any disk has little left
    said = "x could not be written: the disk is full; free some space"
    with pytest.raises(OutputError, match=said) as caught, one_line_errors(tmp_path / "x"):
        raise error
    assert is_disk_full(str(caught.value))


def test_other_errors_of_a_library_stay_what_they_are(tmp_path):
    for error in (RuntimeError("shapes differ"), RuntimeError("PytorchStreamWriter failed"), ValueError("os error 2")):
        with pytest.raises(type(error), match=str(error)), one_line_errors(tmp_path / "x"):
            raise error
