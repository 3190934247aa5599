"""Checkpoints of other projects -> semedit weights."""
