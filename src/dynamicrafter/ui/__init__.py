"""The web page: the same options, the same animator and the same clips as the command line, in a browser.

settings.py    how the page is served, and what it allows; importable without gradio
requests.py    what a visitor asks for; checks.py, the checks before it waits
engine.py      a device and the model on it: one request in, one clip out; story.py, the rows of a story, one film out
tasks.py       the queue: one task for each device, in order
previews.py    the clip as it forms
results.py     finished clips on disk, and who may see them
views.py       what the page says, as HTML
tabs.py        the tabs, from the table of modes; controls.py, Gradio's components for options
layout.py      the page; actions.py what its buttons do; api.py the same for programs
uploads.py     files that visitors sent, and whose they are
guard.py       what is let through to the page, and to whom; log.py, what the server's log says of it
server.py      all of it, served
"""
