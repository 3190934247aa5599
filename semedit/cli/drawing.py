"""Faces from drawn label maps alone: `edit --mask FILE --from none`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from semedit.cli.common import Made, run
from semedit.errors import OptionError


def draw_faces(common: Made, mask: Path, seed: int) -> None:
    """Make faces of the workspace from drawn label maps alone: `edit --mask FILE --from none`."""
    if common.names:
        raise OptionError(
            "a face made from a map alone takes the map's name", "leave out the names of faces"
        )

    def make(device: str, progress: Any) -> Any:
        from semedit.editors import Drawing
        from semedit.options import build_method
        from semedit.tasks.draw import Draw

        return Draw(
            mask,
            build_method(Drawing, common.options or (), seed=seed),
            generator_name=common.generator,
            device=device,
            mark=common.mark,
            progress=progress,
        )

    run(common, "edit", make, new=True)
