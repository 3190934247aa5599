"""How evaluations are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from semedit.cli.common import Shared, data, stdout


def show_figures(common: Shared, figures: Mapping[str, Any], title: str) -> None:
    """A table of names and values, or one JSON line."""
    if common.json:
        data(**figures)
        return
    table = Table("figure", "value", title=title)
    for key, value in figures.items():
        table.add_row(key, f"{value:.4g}")
    stdout.print(table)
