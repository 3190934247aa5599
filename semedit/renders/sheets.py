"""Contact sheets, labelled strips and line plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semedit.renders.frames import Pixels

PLOT_COLOURS = ((200, 60, 50), (40, 140, 70), (45, 90, 190), (150, 80, 160), (120, 120, 120))


def contact_sheet(
    rows: Sequence[Sequence[Pixels | None]],
    captions: Sequence[str] = (),
    row_captions: Sequence[str] = (),
    cell: int = 192,
    margin: int = 8,
) -> Pixels:
    """Pictures in a grid on a light ground, captions above the columns and before the rows.

    Args:    rows: uint8 [H,W,3] pictures, fitted into square cells; None leaves a cell empty.
             cell, margin: px.
    Returns: uint8 [H,W,3].
    """
    columns = max(len(row) for row in rows)
    font = ImageFont.load_default(size=max(11, cell // 13))
    head = cell // 8 if captions else 0
    left = max((int(font.getlength(t)) for t in row_captions), default=-margin) + margin
    step = cell + margin
    sheet = Image.new("RGB", (left + margin + columns * step, head + margin + len(rows) * step))
    sheet.paste((244, 243, 240), (0, 0, *sheet.size))
    draw = ImageDraw.Draw(sheet)
    ink = (40, 40, 44)
    for x, text in enumerate(captions):
        draw.text((left + margin + x * step, margin), text, ink, font)
    for y, row in enumerate(rows):
        top = head + margin + y * step
        if y < len(row_captions):
            draw.text((margin, top + cell // 2 - cell // 20), row_captions[y], ink, font)
        for x, pixels in enumerate(row):
            if pixels is not None:
                fitted = _fit(pixels, cell)
                middle = ((cell - fitted.width) // 2, (cell - fitted.height) // 2)
                sheet.paste(fitted, (left + margin + x * step + middle[0], top + middle[1]))
    return np.asarray(sheet)


def line_plot(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    title: str = "",
    axes: tuple[str, str] = ("", ""),
    size: tuple[int, int] = (640, 400),
) -> Pixels:
    """Lines over common values x, ascending, with marks, ticks and a legend.

    Args:   lines: name -> y, as many as x. axes: names of x and y. size: (width, height) px.
    Returns: uint8 [H,W,3].
    """
    width, height = size
    left, right, top, bottom = 64, 16, 34, 46
    values = [v for line in lines.values() for v in line]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low or 1.0)
    low, high = low - pad, high + pad

    def place(a: float, b: float) -> tuple[float, float]:
        across = (a - x[0]) / ((x[-1] - x[0]) or 1.0)
        up = (b - low) / (high - low)
        return (
            left + across * (width - left - right),
            height - bottom - up * (height - top - bottom),
        )

    image = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(image)
    font, ink, grid = ImageFont.load_default(size=12), (40, 40, 44), (225, 225, 222)
    for a in x:
        draw.line([place(a, low), place(a, high)], grid)
        draw.text(place(a, low), f"{a:g}", ink, font, anchor="ma")
    for k in range(6):
        b = low + (high - low) * k / 5
        draw.line([place(x[0], b), place(x[-1], b)], grid)
        draw.text((left - 6, place(x[0], b)[1]), f"{b:.3g}", ink, font, anchor="rm")
    for index, (name, line) in enumerate(lines.items()):
        colour = PLOT_COLOURS[index % len(PLOT_COLOURS)]
        points = [place(a, b) for a, b in zip(x, line, strict=True)]
        draw.line(points, colour, 2)
        for px, py in points:
            draw.ellipse([px - 3, py - 3, px + 3, py + 3], colour)
        draw.text((left + 8 + 130 * index, top - 18), name, colour, font)
    draw.text((left + 8, 2), title, ink, font)
    draw.text(((left + width - right) / 2, height - 18), axes[0], ink, font, anchor="ma")
    draw.text((4, 2), axes[1], ink, font)
    return np.asarray(image)


def _fit(pixels: Pixels, cell: int) -> Image.Image:
    """The picture at the largest size that fits a cell, its proportions kept."""
    image = Image.fromarray(pixels)
    scale = cell / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
