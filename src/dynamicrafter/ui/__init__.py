"""The web page: the same options, the same animator and the same clips as the command line, in a browser.

settings.py    how the page is served, and what it allows; importable without gradio
catalogue.py   which models a visitor may choose
requests.py    what a visitor asks for, checked before it waits
engine.py      a device and the model on it: one request in, one clip out
jobs.py        the queue: one job per device, in order
previews.py    the clip as it forms
results.py     finished clips on disk, and who may see them
controls.py    components from the options' dataclass, and options from their values
views.py       what the page says, as HTML
story.py       the Story tab's shots as a story
layout.py      the page; actions.py what its buttons do; api.py the same for programs
guard.py       what is let through to the page, and to whom
server.py      all of it, served
"""
