"""ICT-FaceKit light: the scanned head model everything is drawn on.

Coordinates: the model's own centimetres (x to the picture's right, y up, z out of the face) until
`to_world` moves them into the head frame that cameras look at: (p - ORIGIN_CM) * WORLD_PER_CM.

Source: Li et al. 2020, "Learning formation of physically-based face attributes";
github.com/ICT-VGL/ICT-FaceKit (MIT licence).
"""

from __future__ import annotations

import functools
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from semedit.errors import WeightsError
from semedit.heads.raster import FAR, draw_triangles, vertex_normals

ASSET = "ict-facekit"
# Chosen so that an aligned crop of a typical head has the nominal focal length and centre.
WORLD_PER_CM = 0.023
ORIGIN_CM = np.array([0.0, 2.8, 1.5], np.float32)

PARTS = {  # vertex ranges of the model
    "face": (0, 9409),
    "head": (9409, 11248),
    "mouth": (11248, 13294),
    "sockets": (13294, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "left_eye": (21451, 23021),
    "right_eye": (23021, 24591),
}
# Irises lie behind opaque scleras (eyes are painted on the sclera by angle); the rest is for
# renderers with refraction.
DROPPED = (
    "M_IrisLeft",
    "M_IrisRight",
    "M_LacrimalFluid",
    "M_EyeBlend",
    "M_EyeOcclusion",
    "M_EyeLashes",
)
IDENTITIES = 50  # components used, of 100: the rest moves vertices by less than a pixel


class Material(NamedTuple):
    """What a triangle is made of."""

    skin: int = 0
    mouth: int = 1
    gums: int = 2
    teeth: int = 3
    left_eye: int = 4
    right_eye: int = 5
    cloth: int = 6
    hat: int = 7
    frame: int = 8
    metal: int = 9  # earrings
    necklace: int = 10
    lens: int = 11
    brim: int = 12


MATERIAL = Material()


@dataclass(frozen=True)
class Model:
    """The linear model.

    neutral float32 [V,3] cm; identity float32 [K,V*3]; expression float32 [57,V*3] and its names;
    triangles int32 [T,3] of what is drawn, material int8 [T]; landmarks int64 [68] vertex indices.
    """

    neutral: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    names: tuple[str, ...]
    triangles: np.ndarray
    material: np.ndarray
    landmarks: np.ndarray

    def shape(self, identity: np.ndarray, expression: dict[str, float]) -> np.ndarray:
        """Vertices float32 [V,3] cm of identity weights [IDENTITIES] and expression weights.

        A name without _L/_R moves both sides.
        """
        weights = np.zeros(len(self.names), np.float32)
        for i, name in enumerate(self.names):
            weights[i] = expression.get(
                name,
                expression.get(
                    name.removesuffix("_L"), expression.get(name.removesuffix("_R"), 0.0)
                ),
            )
        used = np.flatnonzero(weights)
        moved = identity.astype(np.float32) @ self.identity + weights[used] @ self.expression[used]
        return self.neutral + moved.reshape(-1, 3)


def available() -> bool:
    """Whether the geometry asset is in place.

    Raises: WeightsError: SEMEDIT_ICT names no file.
    """
    return _path() is not None


@functools.lru_cache(maxsize=1)
def load() -> Model:
    """The model, read once per process.

    Raises: WeightsError: the asset is not on this machine, or is another file.
    """
    path = _path()
    if path is None:
        raise WeightsError(
            "the head geometry ict-facekit is not in place", "semedit weights fetch ict-facekit"
        )
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in (*file.files, "neutral", "landmarks68")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} is not the head geometry: {error}") from error
    materials = [str(name) for name in arrays["materials"]]
    kept = ~np.isin(arrays["triangle_material"], [materials.index(name) for name in DROPPED])
    triangles = arrays["triangles"][kept]
    return Model(
        neutral=arrays["neutral"],
        identity=arrays["identity"][:IDENTITIES].reshape(IDENTITIES, -1).astype(np.float32),
        expression=arrays["expression"].reshape(len(arrays["expression"]), -1).astype(np.float32),
        names=tuple(str(name) for name in arrays["expression_names"]),
        triangles=triangles,
        material=_materials(triangles),
        landmarks=arrays["landmarks68"].astype(np.int64),
    )


def _materials(triangles: np.ndarray) -> np.ndarray:
    first = triangles[:, 0]
    material = np.full(len(triangles), MATERIAL.skin, np.int8)
    for part, value in (
        ("mouth", MATERIAL.mouth),
        ("gums", MATERIAL.gums),
        ("teeth", MATERIAL.teeth),
        ("left_eye", MATERIAL.left_eye),
        ("right_eye", MATERIAL.right_eye),
    ):
        start, stop = PARTS[part]
        material[(first >= start) & (first < stop)] = value
    return material


def _path() -> Path | None:
    """The array file: SEMEDIT_ICT, or where the weights table has put it; None: not in place.

    Raises: WeightsError: SEMEDIT_ICT names no file.
    """
    named = os.environ.get("SEMEDIT_ICT")
    if named:
        path = Path(os.path.expanduser(named))  # noqa: PTH111  ~x stays if no user
        if not path.is_file():
            raise WeightsError(
                f"SEMEDIT_ICT says that the head geometry is at {named}, where no file is",
                "correct the variable, or unset it",
            )
        return path
    from semedit import weights

    try:
        return weights.resolve(ASSET)
    except WeightsError:
        return None


def to_world(points: np.ndarray) -> np.ndarray:
    """Model centimetres [...,3] -> head frame."""
    return ((points - ORIGIN_CM) * WORLD_PER_CM).astype(np.float32)


def normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit vertex normals float32 [V,3]."""
    result: np.ndarray = vertex_normals(vertices, triangles)
    return result


@functools.lru_cache(maxsize=1)
def occlusion() -> np.ndarray:
    """Ambient occlusion float32 [V] of the neutral head: share of a cosine-weighted sky seen."""
    model = load()
    q = model.neutral
    normal = normals(q, model.triangles)
    total, weight = np.zeros(len(q), np.float32), np.full(len(q), 1e-6, np.float32)
    size = 200
    for i in range(48):  # Fibonacci directions over the whole sphere
        y = 1 - 2 * (i + 0.5) / 48
        phi = i * 2.399963
        d = np.array([np.sqrt(1 - y * y) * np.cos(phi), y, np.sqrt(1 - y * y) * np.sin(phi)])
        side = np.cross(d, [0.3, 0.9, 0.1])
        side /= np.linalg.norm(side)
        rows = np.stack([side * size / 40, np.cross(d, side) * size / 40, -d]).astype(np.float32)
        points = q @ rows.T + np.array([size / 2, size / 2, 0], np.float32)
        depth = np.full((size, size), FAR, np.float32)
        draw_triangles(points, model.triangles, depth)
        at = np.clip(points[:, 1::-1].astype(int), 0, size - 1)
        cosine = np.maximum(normal @ d.astype(np.float32), 0)
        seen = points[:, 2] < depth[at[:, 0], at[:, 1]] + 0.35
        total += cosine * seen
        weight += cosine
    return np.asarray(total / weight, np.float32)


def convert(source: Path, out: Path) -> None:
    """The repository's FaceXModel folder (or a zip holding it) -> the array file.

    Args:    source: folder or .zip with 158 .obj meshes and vertex_indices.json, or the array
             file itself, which is checked and copied. out: .npz to write.
    Raises:  WeightsError: files are missing or the meshes disagree.
    """
    try:
        if source.suffix == ".npz":
            with np.load(source) as file:
                if "neutral" not in file.files or file["neutral"].shape != (26719, 3):
                    raise WeightsError(f"{source.name} is not the head geometry")
            out.write_bytes(source.read_bytes())
            return
        files = _originals(source)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{source.name} is not the head geometry: {error}") from error
    neutral = _read_obj(files["generic_neutral_mesh.obj"])
    names = sorted(
        n
        for n in files
        if n.endswith(".obj") and "identity" not in n and n != "generic_neutral_mesh.obj"
    )
    identity = [_vertices(files[f"identity{i:03d}.obj"]) for i in range(100)]
    expression = [_vertices(files[name]) for name in names]
    stacked = np.stack(identity + expression)
    if stacked.shape[1:] != neutral["neutral"].shape:
        raise WeightsError("the meshes of the head geometry disagree in size")
    stacked -= neutral["neutral"]
    indices = json.loads(files["vertex_indices.json"])
    np.savez_compressed(
        out,
        **neutral,  # type: ignore[arg-type]
        identity=stacked[:100].astype(np.float16),
        expression=stacked[100:].astype(np.float16),
        expression_names=np.array([name.removesuffix(".obj") for name in names]),
        landmarks68=np.array(indices["idx_to_landmark_verts"], np.int32),
    )


def _originals(source: Path) -> dict[str, bytes]:
    if source.is_dir():
        files = {path.name: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    else:
        with zipfile.ZipFile(source) as archive:
            files = {
                Path(n).name: archive.read(n)
                for n in archive.namelist()
                if "FaceXModel/" in n and not n.endswith("/")
            }
    for name in ("generic_neutral_mesh.obj", "vertex_indices.json", "identity099.obj"):
        if name not in files:
            raise WeightsError(f"{name} is missing in {source.name}")
    return files


def _vertices(content: bytes) -> np.ndarray:
    rows = [line[2:] for line in content.splitlines() if line.startswith(b"v ")]
    values = np.fromstring(b" ".join(rows).decode(), np.float64, sep=" ")
    return values.astype(np.float32).reshape(-1, 3)


def _read_obj(content: bytes) -> dict[str, np.ndarray]:
    """Vertices, texture coordinates and triangulated faces of a Wavefront mesh."""
    uv: list[list[float]] = []
    corners: list[list[tuple[int, int]]] = []
    material: list[int] = []
    materials: list[str] = []
    for raw in content.decode().splitlines():
        key, _, rest = raw.partition(" ")
        if key == "vt":
            uv.append([float(value) for value in rest.split()[:2]])
        elif key == "usemtl":
            if rest.strip() not in materials:
                materials.append(rest.strip())
            current = materials.index(rest.strip())
        elif key == "f":
            face = [tuple(int(i) - 1 for i in c.split("/")[:2]) for c in rest.split()]
            for i in range(1, len(face) - 1):
                corners.append([face[0], face[i], face[i + 1]])  # type: ignore[list-item]
                material.append(current)
    both = np.array(corners, np.int32)
    return {
        "neutral": _vertices(content),
        "triangles": both[..., 0],
        "uv": np.array(uv, np.float32),
        "triangle_uv": both[..., 1],
        "triangle_material": np.array(material, np.int8),
        "materials": np.array(materials),
    }
