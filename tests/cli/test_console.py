import gc
import logging
import sys
import time
from unittest.mock import Mock

import diffusers  # noqa: F401 as the command has it after its first import
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamicrafter.cli.console import Progress, importing, one_line, shown_warnings


@given(st.text())
def test_any_text_becomes_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert line.encode().decode() == line


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1)))
def test_printable_words_stay_as_they_are(words):
    assert one_line("\n".join(words)) == " ".join(words)


def test_where_nobody_watches_a_line_appears_now_and_then(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = Progress(quiet=False)
    progress.start()
    for done in range(1, 21):
        clock[0] += 4
        progress.on_step(done, 20)
    assert capsys.readouterr().err.splitlines() == [
        "Denoising, step 4/20, 1 min 4 s left",
        "Denoising, step 8/20, 48 s left",
        "Denoising, step 12/20, 32 s left",
        "Denoising, step 16/20, 16 s left",
        "Decoding…",
    ]
    assert progress.pace() == "20 steps in 1 min 20 s (4.00 s/step)"


def test_only_the_packages_own_warnings_are_shown_each_once(capsys):
    with shown_warnings():
        for _ in range(2):
            logging.getLogger("dynamicrafter.specs.options").warning("motion %d is\nstrange", 3)
        logging.getLogger("dynamicrafter").info("a detail")
        logging.getLogger("diffusers").info("advice")
    assert capsys.readouterr().err == "warning: motion 3 is strange\n"
    assert not logging.getLogger("dynamicrafter").handlers


def test_the_collector_rests_while_libraries_are_imported_and_only_then(monkeypatch):
    with importing():  # they are here already
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "diffusers", raising=False)
    monkeypatch.setattr(gc, "freeze", frozen := Mock())
    seen = []

    def import_nothing():
        with importing():
            seen.append(gc.isenabled())
            raise ImportError

    with pytest.raises(ImportError):
        import_nothing()
    assert (seen, gc.isenabled()) == ([False], True)
    frozen.assert_called_once_with()
