"""The seams: clock, files, randomness. Whatever touches the world does it through one of these, so that the twin can replace it.

Rules: protocols and their thinnest real implementation only; no decisions. Start reading at `files.py`.
"""
