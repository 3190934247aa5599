"""A head: parameters in, photographs with true labels out."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from semedit import cameras
from semedit.errors import OptionError
from semedit.heads import (
    face_hair,
    geometry,
    growth,
    hair,
    hard,
    parameters,
    raster,
    regions,
    scene,
    shading,
    shape,
    wear,
)
from semedit.heads.geometry import WORLD_PER_CM
from semedit.heads.paint import paint
from semedit.heads.parameters import Parameters
from semedit.heads.strands import shade_strands
from semedit.media.labels import ATTRIBUTES

LOOKS = ("plain", "hard")
SHADOW_SIZE = 320


@dataclass(frozen=True)
class RenderedView:
    """One photograph of a head.

    image uint8 [S,S,3] sRGB; labels uint8 [S,S]; landmarks float32 [68,2] px; visible bool [68];
    c float32 [25]; depth float32 [S,S] head-frame units along the camera's axis, 0 where empty.
    """

    image: np.ndarray
    labels: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray
    c: np.ndarray
    depth: np.ndarray


def samples(size: int, look: str = "plain") -> int:
    """Supersamples per pixel side: small pictures need more, spoiled ones fewer."""
    return 2 if size >= 192 or look == "hard" else (3 if size >= 96 else 4)


@dataclass(frozen=True)
class Stroke:
    """A group of strands with one look. points head frame; see raster.draw_strands."""

    strands: hair.Strands
    base: np.ndarray  # linear RGB
    width: float  # cm at the root
    tips: float = 0.0
    gloss: float = 0.3
    cover: float = 1.0
    value: int = raster.NO_LABEL
    bias: float = 0.002
    casts: bool = False


@dataclass
class HeadScene:
    """Everything of one head that no camera changes."""

    position: np.ndarray
    normal: np.ndarray
    neutral: np.ndarray
    extra: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    lights: shading.Lights
    shadow: shading.Shadow
    paint: shading.Paint
    strokes: tuple[Stroke, ...]
    lens: tuple[np.ndarray, np.ndarray] | None  # vertices [V,3] head frame, triangles


@dataclass(frozen=True)
class Head:
    """One head. The seed fixes what no parameter says (strands, pores); z says the rest.

    own_z float32 [parameters.DIMENSIONS], or None for the seed's own. lids: see shape.build.
    """

    seed: int
    own_z: np.ndarray | None = field(default=None, repr=False)
    lids: float = 0.0

    @functools.cached_property
    def z(self) -> np.ndarray:
        """float32 [parameters.DIMENSIONS]."""
        return parameters.sample(self.seed) if self.own_z is None else self.own_z

    @functools.cached_property
    def parameters(self) -> Parameters:
        return parameters.decode(self.z)

    def edited(self, **changes: object) -> Head:
        """The same head with some parameters changed, all others kept."""
        return Head(self.seed, parameters.replace(self.z, **changes), self.lids)

    @functools.cached_property
    def vertices(self) -> np.ndarray:
        """float32 [V,3], model centimetres."""
        return shape.build(self.parameters, self.lids)

    @functools.cached_property
    def landmarks(self) -> np.ndarray:
        """float32 [68,3], head frame."""
        return geometry.to_world(self.vertices[geometry.load().landmarks])

    @functools.cached_property
    def attributes(self) -> np.ndarray:
        """bool [len(ATTRIBUTES)]."""
        truth = parameters.attributes(self.parameters, shape.is_open(self.parameters))
        return np.array([truth[name] for name in ATTRIBUTES])

    def camera(self, yaw: float, pitch: float, roll: float = 0.0) -> np.ndarray:
        """c float32 [25] of the aligned crop of this head seen at an angle, radians."""
        c = cameras.orbit(yaw, pitch, roll)
        for _ in range(2):  # the crop's own roll changes the box a little
            uv = cameras.project(torch.from_numpy(self.landmarks)[None], c)[0][0].numpy()
            c = cameras.crop(c, *_alignment(uv))
        return np.asarray(c[0].numpy(), np.float32)

    @functools.cached_property
    def scene(self) -> HeadScene:
        return _scene(self)

    def render(self, c: np.ndarray, size: int = 256, look: str = "plain") -> RenderedView:
        """Photograph the head.

        Args:   c float32 [25]; size px; look "plain" or "hard" (clutter, blur, noise, casts).
        Raises: OptionError: unknown look.
        """
        if look not in LOOKS:
            raise OptionError(f"look is one of {', '.join(LOOKS)}")
        return _render(self, np.asarray(c, np.float32), size, look)


def _alignment(uv: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The FFHQ crop of landmarks uv [68,2] as a similarity (scale, rotation, shift).

    Source: Karras et al. 2019, arXiv:1812.04948: the quad of eyes and mouth corners.
    """
    left, right = uv[36:42].mean(0), uv[42:48].mean(0)
    eye, mouth = (left + right) / 2, (uv[48] + uv[54]) / 2
    across, down = right - left, mouth - eye
    x = across - np.array([-down[1], down[0]])
    x /= np.hypot(*x)
    x *= max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    center = eye + down * 0.1
    scale = 0.5 / np.hypot(*x)
    angle = -np.arctan2(x[1], x[0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = -scale * turn @ (center - 0.5)

    def tensor(value: object) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32)[None]

    return tensor(scale), tensor(angle), tensor(shift)


def _shadow(
    position: np.ndarray, triangles: np.ndarray, key: np.ndarray, strokes: tuple[Stroke, ...]
) -> shading.Shadow:
    side = np.cross([0.0, 1.0, 0.0], key)
    side /= np.linalg.norm(side)
    up = np.cross(key, side)
    scale, half = SHADOW_SIZE / 1.05, SHADOW_SIZE / 2
    rows = np.stack([side * scale, -up * scale, -key]).astype(np.float32)
    offset = np.array([half, half, 0.0], np.float32)
    depth = np.full((SHADOW_SIZE, SHADOW_SIZE), raster.FAR, np.float32)
    raster.draw_triangles(position @ rows.T + offset, triangles, depth)
    for stroke in strokes:
        if stroke.casts:
            points = stroke.strands.points @ rows.T + offset
            raster.draw_strand_depth(points, stroke.strands.length, depth)
    matrix = np.concatenate([rows, offset[:, None]], 1).astype(np.float64)
    return shading.Shadow(depth, matrix)


def _world(strands: hair.Strands) -> hair.Strands:
    return strands._replace(points=geometry.to_world(strands.points))


def _strokes(head: Head, painted: shading.Paint, normals: np.ndarray) -> tuple[Stroke, ...]:
    p, v = head.parameters, head.vertices
    found = [
        Stroke(
            _world(face_hair.brows(p, v, normals, head.seed)),
            painted.brow_rgb,
            0.038,
            gloss=0.1,
            cover=0.75,
        )
    ]
    for lash in face_hair.lashes(p, v, normals, head.seed):
        found.append(
            Stroke(_world(lash), np.array([0.012, 0.010, 0.010]), 0.036, gloss=0.0, cover=0.8)
        )
    beard = face_hair.beard(p, painted, v, normals, head.seed)
    if beard is not None:
        found.append(
            Stroke(
                _world(beard),
                painted.beard_rgb,
                0.05,
                gloss=0.2,
                value=raster.NO_LABEL if p.beard == "stubble" else (raster.ONLY_OUTSIDE),
                cover=0.55 if p.beard == "stubble" else 0.85,
            )
        )
    grown = hair.grow_hair(p, painted, v, normals, regions.ears(), head.seed)
    if grown is not None:
        found.append(
            Stroke(
                _world(grown),
                painted.hair_rgb,
                0.085 if p.cut != "buzz" else 0.05,
                tips=0.35 * p.hair_tips,
                gloss=p.hair_gloss,
                value=13,
                casts=True,
            )
        )
    return tuple(found)


def _worn(head: Head) -> tuple[wear.Piece, wear.Piece | None]:
    """Everything worn as one mesh, and the lenses apart."""
    p, vertices = head.parameters, head.vertices
    neck = wear.neck_field(vertices)
    pieces: list[wear.Piece] = [wear.clothes(p, wear.widened(neck))]
    lenses = None
    if p.necklace:
        pieces.append(wear.necklace(p, neck))
    if p.glasses:
        frame, lenses = wear.glasses(p, vertices)
        pieces.append(frame)
    if p.earrings:
        pieces.append(wear.earrings(p, vertices))
    if p.hat:
        pieces.append(wear.hat(p, hair.radius_field(vertices)))
    return wear.join(pieces), lenses


def _scene(head: Head) -> HeadScene:
    model, p = geometry.load(), head.parameters
    body = geometry.to_world(head.vertices)
    body_normal = geometry.normals(body, model.triangles)
    lights, painted = scene.lights(p), paint(p, head.seed, head.landmarks)
    strokes = _strokes(head, painted, body_normal)
    worn, lenses = _worn(head)
    added = geometry.to_world(worn.vertices)
    position = np.concatenate([body, added])
    normal = np.concatenate([body_normal, geometry.normals(added, worn.triangles)])
    neutral = np.concatenate([model.neutral, worn.object])
    triangles = np.concatenate([model.triangles, worn.triangles + np.int32(len(body))])
    material = np.concatenate([model.material, worn.material])
    bare = np.zeros(len(added), np.float32)
    extra = shading.surface_noise(
        neutral,
        painted.seed,
        np.append(geometry.occlusion(), bare + 1),
        np.append(regions.ears(), bare),
    )
    shadow = _shadow(position, triangles, lights.key, strokes)
    lens = None if lenses is None else (geometry.to_world(lenses.vertices), lenses.triangles)
    return HeadScene(
        position,
        normal,
        neutral,
        extra,
        triangles,
        material,
        lights,
        shadow,
        painted,
        strokes,
        lens,
    )


def _screen(points: np.ndarray, c: np.ndarray, side: int) -> np.ndarray:
    """Head frame [V,3] -> float32 [V,3] = (x px, y px, depth)."""
    cam2world, k = c[:16].reshape(4, 4), c[16:].reshape(3, 3)
    local = (points - cam2world[:3, 3]) @ cam2world[:3, :3]
    z = local[:, 2:3]
    uv = local[:, :2] / z * k[0, 0] + k[:2, 2]
    return np.concatenate([uv * side, z], 1).astype(np.float32)


def _visible(points: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Whether landmarks [68,3] (px, px, depth) are in the picture and in front."""
    side = len(depth)
    i = np.clip(points[:, 1].astype(int), 0, side - 1)
    j = np.clip(points[:, 0].astype(int), 0, side - 1)
    inside = (points[:, :2] >= 0).all(1) & (points[:, :2] < side).all(1)
    return np.asarray(inside & (points[:, 2] < depth[i, j] + 0.4 * WORLD_PER_CM))


def _majority(label: np.ndarray, n: int) -> np.ndarray:
    """Most frequent label of each n x n block."""
    size = len(label) // n
    blocks = label.reshape(size, n, size, n).swapaxes(1, 2).reshape(size * size, n * n)
    counts = np.zeros((size * size, 19), np.uint8)
    rows = np.arange(size * size)
    for s in range(n * n):
        counts[rows, blocks[:, s]] += 1
    # Ties go to what lies on top: the highest count, then the larger id of small things.
    return counts.argmax(1).astype(np.uint8).reshape(size, size)


def _render(head: Head, c: np.ndarray, size: int, look: str) -> RenderedView:
    hard_look = look == "hard"
    # The hard look differs from view to view, but repeats for the same head and camera.
    rng = np.random.default_rng([head.seed, 9, int(abs(float(c.sum())) * 1e4)])
    p = head.parameters
    if hard_look:
        c = _jitter(c, rng)
    s, n = head.scene, samples(size, look)
    lit = _relit(s, rng) if hard_look and rng.random() < 0.6 else s
    ground = (
        hard.clutter(size, rng)
        if hard_look and rng.random() < 0.8
        else (scene.background(p, size, head.seed))
    )
    rgb, label, depth, covered = _picture(p, lit, c, size * n, ground.repeat(n, 0).repeat(n, 1))
    if hard_look:
        if rng.random() < 0.25:
            hard.occlude(rgb, label, scene.linear((0.8, 0.6, 0.5)) * 0.3**p.melanin, rng)
        rgb = hard.cast(rgb, rng)
    image = scene.develop(rgb, p).reshape(size, n, size, n, 3).mean((1, 3))
    if hard_look:
        image = hard.spoil(image, rng)
    points = _screen(head.landmarks, c, size)
    visible = _visible(points * np.array([n, n, 1], np.float32), depth)
    depth = np.where(covered, depth, 0)[n // 2 :: n, n // 2 :: n]
    return RenderedView(
        (image * 255 + 0.5).astype(np.uint8),
        _majority(label, n),
        points[:, :2].copy(),
        visible,
        c,
        np.ascontiguousarray(depth),
    )


def _picture(
    p: Parameters, s: HeadScene, c: np.ndarray, side: int, rgb: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Linear colours over the background rgb, labels, depth, and what is covered; supersampled."""
    b = raster.buffers(side)
    raster.draw_triangles(_screen(s.position, c, side), s.triangles, *b)
    label = np.zeros((side, side), np.uint8)
    eye = c[:16].reshape(4, 4)[:3, 3].astype(np.float64)
    shading.shade(
        b.triangle,
        b.bary,
        s.triangles,
        s.material,
        s.position,
        s.normal,
        s.neutral,
        s.extra,
        eye,
        s.lights,
        s.shadow,
        s.paint,
        regions.maps(),
        rgb,
        label,
    )
    for stroke in s.strokes:
        _draw(stroke, s, c, eye, b.depth, rgb, label)
    if s.lens is not None:
        _glaze(p, s, c, eye, b.depth, rgb, label)
    return rgb, label, b.depth, b.depth < raster.FAR


def _jitter(c: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop that is not quite the aligned one."""

    def tensor(value: object) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32)[None]

    moved = cameras.crop(
        torch.from_numpy(c)[None],
        tensor(np.exp(rng.normal(0, 0.06))),
        tensor(rng.normal(0, 0.06)),
        tensor(rng.normal(0, 0.025, 2)),
    )
    return np.asarray(moved[0].numpy(), np.float32)


def _relit(s: HeadScene, rng: np.random.Generator) -> HeadScene:
    """The same head under strange light: from anywhere in front, harsh or dim, coloured."""
    key = rng.normal(0, 1, 3) * np.array([1.2, 0.9, 0.6]) + np.array([0, 0.3, 0.7])
    key /= np.linalg.norm(key)
    color = np.exp(rng.normal(0, 0.2, 3)) * rng.uniform(0.3, 2.2)
    dim = rng.uniform(0.25, 1.1)
    lights = s.lights._replace(
        key=key,
        key_rgb=s.lights.key_rgb * color,
        sky=s.lights.sky * dim,
        ground=s.lights.ground * dim,
        fill_rgb=s.lights.fill_rgb * dim,
    )
    return replace(s, lights=lights, shadow=_shadow(s.position, s.triangles, key, s.strokes))


def _draw(
    stroke: Stroke,
    s: HeadScene,
    c: np.ndarray,
    eye: np.ndarray,
    depth: np.ndarray,
    rgb: np.ndarray,
    label: np.ndarray,
) -> None:
    strands, side = stroke.strands, len(depth)
    n, k = strands.points.shape[:2]
    color = np.zeros((n, k, 3), np.float32)
    center = geometry.to_world(growth.CENTER).astype(np.float64)
    shade_strands(
        strands.points,
        strands.length,
        strands.tint,
        strands.layer,
        stroke.base,
        stroke.tips,
        stroke.gloss,
        center,
        eye,
        s.lights,
        s.shadow,
        0.03,
        color,
    )
    screen = _screen(strands.points.reshape(-1, 3), c, side).reshape(n, k, 3)
    px = stroke.width * WORLD_PER_CM * c[16] * side
    width = (px / np.maximum(screen[:, 0, 2], 0.1)).astype(np.float32)
    raster.draw_strands(
        screen,
        strands.length,
        color,
        width,
        stroke.cover,
        stroke.value,
        stroke.bias,
        depth,
        rgb,
        label,
    )


def _glaze(
    p: Parameters,
    s: HeadScene,
    c: np.ndarray,
    eye: np.ndarray,
    depth: np.ndarray,
    rgb: np.ndarray,
    label: np.ndarray,
) -> None:
    """Lay the lenses over the picture: tint, a soft reflection, labels."""
    assert s.lens is not None
    vertices, triangles = s.lens
    b = raster.buffers(len(depth))
    raster.draw_triangles(_screen(vertices, c, len(depth)), triangles, *b)
    rows, cols = np.nonzero((b.triangle >= 0) & (b.depth < depth))
    w = b.bary[rows, cols]
    w = np.concatenate([1 - w.sum(1, keepdims=True), w], 1)
    at = np.einsum("nc,ncx->nx", w, vertices[triangles[b.triangle[rows, cols]]])
    view = at - eye
    view /= np.linalg.norm(view, axis=1, keepdims=True)
    mirrored = view * np.array([1, 1, -1]) + at * np.array([2.0, 1.0, 0])
    sky = np.clip(mirrored[:, 1] * 3 + 0.1 + 0.4 * mirrored[:, 0], 0, 1) ** 2
    dark = p.glasses_rim == "sun"
    tint = scene.hsv(p.glasses_hue, 0.35, 0.75)
    through = tint * (0.02 + 0.16 * p.lens_tint**2) if dark else np.full(3, 0.95)
    shine = (0.10 if dark else 0.045) * (0.4 + sky)[:, None] * (s.lights.sky + s.lights.fill_rgb)
    rgb[rows, cols] = rgb[rows, cols] * through + shine
    under = label[rows, cols]
    label[rows, cols] = 3 if dark else np.where((under >= 4) & (under <= 7), under, 3)
