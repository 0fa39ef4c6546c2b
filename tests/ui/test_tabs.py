"""Tabs follow the table of modes."""

from dataclasses import replace

from dynamicrafter.modes import MODES
from dynamicrafter.ui.requests import STORY
from dynamicrafter.ui.tabs import MOST_PICTURES, all_tabs


def test_there_is_a_tab_for_each_mode_with_as_many_places_as_it_takes_pictures():
    tabs = all_tabs()
    assert [tab.name for tab in tabs] == [*MODES, STORY]
    for tab, mode in zip(tabs, MODES.values(), strict=False):
        least, most = mode.pictures
        assert len(tab.pictures) == least
        assert len(tab.pictures + tab.more) == (MOST_PICTURES if most is None else most)


def test_a_mode_that_is_added_gets_a_tab_by_itself(monkeypatch):
    entry = replace(MODES["animate"], name="slow_motion", promise="Time runs slower.", pictures=(1, 3))
    monkeypatch.setitem(MODES, entry.name, entry)
    tab = next(tab for tab in all_tabs() if tab.name == entry.name)
    assert (tab.title, tab.lead) == ("Slow motion", "Time runs slower.")
    assert (tab.pictures, tab.more) == (("First picture",), ("Second picture", "Third picture"))
