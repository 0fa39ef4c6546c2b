"""Shots, title cards and transitions in a file become one film.

located.py   a YAML file whose values know their lines; format.py, the story in it, checked
cards.py     title cards, drawn
plan.py      what must be made, of what, and when it is shown; models.py, what is known of a model before it is loaded
kept.py      the folder of what was made; making.py, the making; joining.py, the film

Importable without torch, but for making.py.
"""
