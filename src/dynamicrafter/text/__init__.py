"""Prompts become token ids. Importable without PyTorch."""
