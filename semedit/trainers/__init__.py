"""Trainers by name: what `semedit train NAME` knows. Add one: write its file, add its line."""

from __future__ import annotations

from typing import Any

from .triplane import HeadsTrainer

TRAINERS: dict[str, Any] = {"heads-128": HeadsTrainer}
