"""Shots, title cards and transitions in a file become one film.

located.py   a YAML file whose values know their lines; format.py, the story in it, checked; values.py, single values
cards.py     title cards, drawn
clips.py     the clips that a model has to make; plan.py, when each is shown
kept.py      the folder of what was made; making.py, the making; joining.py, the film

Importable without torch, but for making.py.
"""
