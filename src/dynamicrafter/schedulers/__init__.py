"""Noise and the way back: the noise schedule, the meaning of the network's output, and the samplers.

Pure mathematics on latents: nothing here knows networks, guidance or files.
"""
