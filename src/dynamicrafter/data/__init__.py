"""Clips to train on: where they come from, how they are read, and which one comes when.

source (CSV, JSONL, folder) → records → a stream of samples, one for every position of an endless order
"""
