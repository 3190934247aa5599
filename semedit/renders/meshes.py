"""A face's density field -> a coloured mesh (PLY, OBJ) and depth maps.

Vertices are in world units (see semedit.cameras): x to the picture's right, y up, z out of the
face; triangles run counter-clockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semedit import cameras
from semedit.errors import InputError, OptionError, TraitError
from semedit.generators.contract import Generator
from semedit.generators.parts import volume
from semedit.latents import Latent, TunedGenerator, tuned_generator
from semedit.media.files import atomic_path

FORMATS = ("ply", "obj")


LEVEL = 10.0  # density of the surface, 1 / world unit


CHUNK = 1 << 18  # points evaluated at a time


SAMPLES = 128  # per ray of a depth map


UNIT = 1e-4  # world units of one step of a depth map's 16 bits; 0 is no surface


SPECKS = 0.01  # parts of a mesh with fewer of the largest part's vertices are left out


Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface.

    Attributes:
        vertices: float32 [V,3]. triangles: int32 [F,3], indices of vertices.
        normals: float32 [V,3], unit, outwards. colours: uint8 [V,3], sRGB.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]
    normals: NDArray[np.float32]
    colours: NDArray[np.uint8]


class DensityField:
    """Density and colour of one face; what a latent has tuned is in it.

    Raises: TraitError: the generator is no field of density and colour.
    """

    def __init__(self, generator: Generator, latent: Latent) -> None:
        if "field" not in generator.traits:
            raise TraitError(
                f"{generator.name} is no field of density and colour",
                hint="meshes and depth maps need a tri-plane generator, such as heads-128",
            )
        self._generator = tuned_generator(generator, latent)
        self.half = float(generator.config.box) / 2
        with torch.no_grad():
            self._planes = self._generator.planes(latent.codes)
        self.device = latent.c.device

    def density(self, points: Tensor, progress: Progress | None = None) -> Tensor:
        """Density [M] (1 / world unit) at points [M,3]."""
        return self._each(self._generator.sigma, points, progress)

    def colour(self, points: Tensor) -> Tensor:
        """Colour [M,3] in [-1,1] at points [M,3]."""

        def colour(*args: Any) -> Tensor:
            found: Tensor = self._generator.field(*args)[1]
            return found

        found = self._each(colour, points).clamp(-1, 1)
        tuned = isinstance(self._generator, TunedGenerator)
        return self._generator.toned(found) if tuned else found

    @torch.no_grad()
    def _each(
        self, evaluate: Callable[..., Tensor], points: Tensor, progress: Progress | None = None
    ) -> Tensor:
        """A function of planes, points [M,3] and faces, in parts."""
        found, done = [], 0
        for part in points.split(CHUNK):
            face = torch.zeros(len(part), dtype=torch.int64, device=self.device)
            found.append(evaluate(self._planes, part.to(self.device), face).float().cpu())
            done += len(part)
            if progress is not None:
                progress(done, len(points))
        return torch.cat(found)


def extract(
    field: DensityField,
    resolution: int = 160,
    level: float = LEVEL,
    progress: Progress | None = None,
) -> Mesh:
    """The surface where density passes `level`, by marching cubes.

    Args:   resolution: cells a side of the grid.
    Raises: InputError: there is no such surface.
    """
    from skimage.measure import marching_cubes

    line = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * field.half
    x, y, z = torch.meshgrid(line, line, line, indexing="ij")
    sigma = field.density(torch.stack([x, y, z], -1).reshape(-1, 3), progress)
    # Outside the box there is nothing: what leaves it is closed there.
    grid = np.pad(sigma.view(resolution, resolution, resolution).numpy(), 1)
    if not grid.min() < level < grid.max():
        raise InputError(
            f"no surface of density {level:g}", hint=f"the densest point has {grid.max():.3g}"
        )
    step = 2 * field.half / resolution
    vertices, triangles, normals, _ = marching_cubes(
        grid, level, spacing=(step, step, step), gradient_direction="ascent"
    )
    vertices = vertices - field.half - step / 2
    vertices, triangles, normals = without_specks(vertices, triangles, normals)
    inwards = torch.from_numpy(vertices - normals * step / 2).float()
    colours = ((field.colour(inwards) + 1) * 127.5).round().numpy().astype(np.uint8)
    return Mesh(
        vertices.astype(np.float32),
        triangles.astype(np.int32),
        normals.astype(np.float32),
        colours,
    )


def without_specks(
    vertices: NDArray[Any], triangles: NDArray[Any], normals: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The parts that hang together and are no smaller than SPECKS of the largest one."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(vertices)
    ends = np.concatenate([triangles[:, :2], triangles[:, 1:]]).T
    edges = coo_matrix((np.ones(ends.shape[1], bool), tuple(ends)), (count, count))
    _, part = connected_components(edges, directed=False)
    sizes = np.bincount(part)
    kept = (sizes >= SPECKS * sizes.max())[part]
    place = np.cumsum(kept) - 1
    return vertices[kept], place[triangles[kept[triangles[:, 0]]]], normals[kept]


def write_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write a mesh as the path's suffix says: binary PLY, or OBJ with colours behind vertices.

    Raises: OptionError: a suffix other than .ply and .obj.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    writers = {"ply": _ply, "obj": _obj}
    if kind not in writers:
        raise OptionError(f"there is no mesh format {kind}; formats: {', '.join(FORMATS)}")
    with atomic_path(path) as partial:
        partial.write_bytes(writers[kind](mesh))


def _ply(mesh: Mesh) -> bytes:
    names = ("x", "y", "z", "nx", "ny", "nz")
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(mesh.vertices)}"]
    lines += [f"property float {name}" for name in names]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines += [f"element face {len(mesh.triangles)}", "property list uchar int vertex_indices"]
    rows = np.zeros(len(mesh.vertices), [("place", "<f4", 6), ("colour", "u1", 3)])
    rows["place"] = np.concatenate([mesh.vertices, mesh.normals], 1)
    rows["colour"] = mesh.colours
    faces = np.zeros(len(mesh.triangles), [("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.triangles
    return "\n".join([*lines, "end_header\n"]).encode() + rows.tobytes() + faces.tobytes()


def _obj(mesh: Mesh) -> bytes:
    rows = np.concatenate([mesh.vertices, mesh.colours / 255], 1)
    lines = ["v " + " ".join(f"{value:.5f}" for value in row) for row in rows.tolist()]
    lines += ["vn " + " ".join(f"{value:.4f}" for value in row) for row in mesh.normals.tolist()]
    lines += [
        "f " + " ".join(f"{i}//{i}" for i in triangle) for triangle in (mesh.triangles + 1).tolist()
    ]
    return ("\n".join(lines) + "\n").encode()


@torch.no_grad()
def depth_map(field: DensityField, c: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Depth along the axis of a camera c [1,25]: mean over the ray, where it is mostly stopped.

    Returns: depth float32 [size,size] in world units, opacity [size,size] in [0,1].
    """
    origins, directions = (x[0] for x in cameras.rays(c.cpu().float(), size))
    near, far = volume.box_interval(origins, directions, field.half)
    places = (torch.arange(SAMPLES) + 0.5) / SAMPLES
    t = near[:, None] + (far - near)[:, None] * places
    points = origins[:, None] + t[..., None] * directions[:, None]
    meets = far > near
    sigma = torch.zeros(t.shape)
    sigma[meets] = field.density(points[meets].reshape(-1, 3)).view(-1, SAMPLES)
    lengths = ((far - near) / SAMPLES)[:, None].expand_as(t)
    weights, through = volume.composite(sigma, lengths)
    opacity = 1 - through
    along = (weights * t).sum(1) / opacity.clamp(min=1e-6)
    axis = cameras.split(c.cpu().float())[0][0, :3, 2]
    depth = along * (directions @ axis)
    return depth.view(size, size), opacity.view(size, size)


def write_depth(path: str | Path, depth: Tensor, opacity: Tensor) -> None:
    """Write a depth map [H,W] as a grey PNG of 16 bits: depth / UNIT, 0 where rays pass."""
    path = Path(path)
    steps = (depth / UNIT).round().clamp(1, 65535) * (opacity > 0.5)
    with atomic_path(path) as partial:
        Image.fromarray(steps.numpy().astype(np.uint16)).save(partial, "PNG")
