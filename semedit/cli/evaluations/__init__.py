"""The commands of `semedit eval`, one file each, named like the command."""

from __future__ import annotations

import typer

from semedit.cli.common import command
from semedit.cli.evaluations.attributes import eval_attributes
from semedit.cli.evaluations.detail import eval_detail
from semedit.cli.evaluations.fid import eval_fid
from semedit.cli.evaluations.heads import eval_heads
from semedit.cli.evaluations.ide3d import eval_ide3d
from semedit.cli.evaluations.semfaceedit import eval_semfaceedit
from semedit.cli.evaluations.styles import eval_styles
from semedit.cli.evaluations.transfer import eval_transfer
from semedit.cli.evaluations.views import eval_views


def register(app: typer.Typer) -> None:
    """Add the commands to the group `eval`."""
    command(app, "heads")(eval_heads)
    command(app, "detail")(eval_detail)
    command(app, "attributes")(eval_attributes)
    command(app, "styles")(eval_styles)
    command(app, "fid")(eval_fid)
    command(app, "semfaceedit")(eval_semfaceedit)
    command(app, "transfer")(eval_transfer)
    command(app, "views")(eval_views)
    command(app, "ide3d")(eval_ide3d)
