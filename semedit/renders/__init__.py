"""(generator, latent, camera path) -> frames -> GIF, WebP, MP4; contact sheets.

Frames are uint8 sRGB [F,H,W,3].
"""

from semedit.renders.frames import (
    FORMATS,
    FRAME_BYTES,
    PATHS,
    Pixels,
    camera_path,
    render_frames,
    write_animation,
)
from semedit.renders.sheets import PLOT_COLOURS, contact_sheet, line_plot

__all__ = [
    "FORMATS",
    "FRAME_BYTES",
    "PATHS",
    "PLOT_COLOURS",
    "Pixels",
    "camera_path",
    "contact_sheet",
    "line_plot",
    "render_frames",
    "write_animation",
]
