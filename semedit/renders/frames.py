"""(generator, latent, camera path) -> frames -> GIF, WebP, MP4; contact sheets.

Frames are uint8 sRGB [F,H,W,3].
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semedit import cameras
from semedit.errors import OptionError, TraitError
from semedit.generators import with_labels
from semedit.generators.contract import Generator
from semedit.latents import Latent, tuned_generator
from semedit.media import provenance
from semedit.media.files import atomic_path
from semedit.media.masks import colorize
from semedit.media.pixels import to_uint8

Pixels = NDArray[np.uint8]


FORMATS = ("gif", "mp4", "webp")


PATHS = ("swing", "orbit")


FRAME_BYTES = {"gif": 12_000, "webp": 4000, "mp4": 1500}  # about, of a frame of 128 pixels


def camera_path(c: Tensor, path: str, frames: int, yaw: float, pitch: float) -> Tensor:
    """Cameras [frames,25] of a closed path around the face.

    Args:   c [1,25]: the face's own camera, which gives the crop. path: "swing", there and back
            within +-yaw and +-pitch, or "orbit", once around the head at a constant pitch.
            yaw, pitch: radians.
    Raises: OptionError: another path, or fewer than two frames.
    """
    if frames < 2:
        raise OptionError("a turntable takes at least 2 frames")
    if path == "swing":
        return cameras.swing(c, frames, yaw, pitch)
    if path == "orbit":
        return cameras.full_orbit(c, frames, pitch)
    raise OptionError(f"there is no path {path}; paths: {', '.join(PATHS)}")


@torch.no_grad()
def render_frames(
    generator: Generator,
    latent: Latent,
    c: Tensor,
    seg: bool = False,
    chunk: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Pixels:
    """One face seen along a path; its planes are computed once.

    Args:    latent: one face. c: cameras [F,25]. seg: put the coloured label map to the right.
             chunk: frames rendered at a time.
    Returns: uint8 [F,R,R,3], [F,R,2R,3] with seg.
    Raises:  TraitError: the generator has no camera.
    """
    if "camera" not in generator.traits:
        raise TraitError(f"{generator.name} offers no camera, which this turntable needs")
    if seg:
        generator = with_labels(generator)
    tuned = tuned_generator(generator, latent)
    planes = tuned.planes(latent.codes)
    strips: list[Pixels] = []
    for part in c.split(chunk):
        output = tuned.render(planes, part)
        pixels = to_uint8(output.image)
        if seg:
            colours = colorize(_labels(output.seg, output.image.shape[-1]))
            pixels = np.concatenate([pixels, colours], axis=2)
        strips.append(pixels)
        if progress is not None:
            progress(sum(map(len, strips)), len(c))
    return np.concatenate(strips)


def _labels(seg: Tensor, size: int) -> Tensor:
    """Label map [N,size,size]: logits are resized, so that outlines stay smooth."""
    return torch.nn.functional.interpolate(seg, (size, size), mode="bilinear").argmax(1).cpu()


def write_animation(path: str | Path, frames: Pixels, fps: float = 24.0, mark: bool = True) -> None:
    """Write frames as the path's suffix says; GIF and WebP loop for ever.

    Args:   mark: record in the file that a trained model made the pictures.
    Raises: OptionError: a suffix other than .gif, .webp, .mp4.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    writers = {"gif": _write_gif, "webp": _write_webp, "mp4": _write_mp4}
    if kind not in writers:
        raise OptionError(f"there is no animation format {kind}; formats: {', '.join(FORMATS)}")
    with atomic_path(path) as partial:
        writers[kind](partial, frames, fps, mark)
        if mark:
            provenance.sign(partial, f".{kind}")


def _write_gif(path: Path, frames: Pixels, fps: float, mark: bool) -> None:
    """One palette for all frames, so that still parts do not flicker; GIF counts in 1/100 s."""
    palette = _shared_palette(frames)
    images = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for f in frames
    ]
    images[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=10 * max(2, round(100 / fps)),
        loop=0,
        optimize=False,
        disposal=1,
    )
    if mark:
        path.write_bytes(provenance.in_gif(path.read_bytes()))


def _shared_palette(frames: Pixels, samples: int = 24) -> Image.Image:
    """256 colours that suit frames spread over the whole path: median cut, then k-means, which on
    turning heads is 2 dB nearer and no worse than a palette per frame."""
    chosen = frames[np.linspace(0, len(frames) - 1, min(samples, len(frames))).astype(int)]
    column = chosen.reshape(-1, chosen.shape[2], 3)
    return Image.fromarray(column).quantize(256, Image.Quantize.MEDIANCUT, kmeans=3)


def _write_webp(path: Path, frames: Pixels, fps: float, mark: bool) -> None:
    images = [Image.fromarray(f) for f in frames]
    images[0].save(
        path,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        loop=0,
        quality=88,
        xmp=provenance.packet().encode() if mark else b"",
        method=4,
    )


def _write_mp4(path: Path, frames: Pixels, fps: float, mark: bool) -> None:
    """H.264, 4:2:0, which wants even sides: the last row or column is doubled where needed."""
    import imageio.v3 as iio

    high, wide = frames.shape[1] % 2, frames.shape[2] % 2
    even = np.pad(frames, ((0, 0), (0, high), (0, wide), (0, 0)), mode="edge")
    with iio.imopen(path, "w", plugin="pyav", extension=".mp4") as file:
        file.init_video_stream("libx264", fps=fps, pixel_format="yuv420p")
        for frame in even:
            file.write_frame(frame)
    if mark:
        path.write_bytes(provenance.in_mp4(path.read_bytes()))
