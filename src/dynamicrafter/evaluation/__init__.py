"""Measures of a clip against its picture and its prompt: fidelity, motion, flicker, closure, similarity, Fréchet."""
