"""Reading and writing weights: official, DeepSpeed, pruned and flat files, and our folder in diffusers' layout.

- `files.py`: a file → named tensors, mapped and unread; `pickles.py` refuses unsafe ones, `sniff.py` says what a file
  is when it is no checkpoint.
- `keys.py`: our parameter names ↔ the published ones, as tables.
- `variants.py`: whose file is this? Preset and size from keys and shapes.
- `networks.py`: the five networks, built empty and filled tensor by tensor; `load.py` does so for whole files.
- `seeded.py`: weights drawn from their names, for tests and benchmarks.
- `published.py`: back to the published layout; `inspection.py`: what a file holds.
"""
