"""68 landmarks of proposed faces, and whether each proposal is a face at all.

Back-ends: `builtin` (our LandmarkNet) and `face-alignment` (FAN, Bulat et al. 2017,
arXiv:1703.07332).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from semedit import weights
from semedit.faces import networks
from semedit.faces.align import MIRROR, cut, face_quad, square_quad, to_photo
from semedit.runtime import torchvision_ops

# The network's view of a face, in sides of its aligned crop: its centre lies lower, between eyes
# and mouth, and it is a little tighter.
VIEW_DOWN, VIEW_SIDE = 0.14, 0.85
# A frontal face of a cascade's box of side 1 has an aligned crop of side 1.56 (15 photographs).
CROP_PER_BOX, CENTRE_BELOW_BOX = 1.56, 0.14
BELOW_MIDDLE = 0.07  # of its size: the view's centre below the mean of five points (1,400 heads)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Of K proposals: points float32 [K,68,2] px of the photo; visible [K,68] and score [K], the
    chance that this is a face, in [0,1]."""

    points: np.ndarray
    visible: np.ndarray
    score: np.ndarray


def view_of_points(points: np.ndarray) -> np.ndarray:
    """The network's square [4,2] about a face with known points ([68,2] or [5,2], px)."""
    quad = face_quad(points)
    right, down = quad[3] - quad[0], quad[1] - quad[0]
    centre = quad.mean(0) + VIEW_DOWN * down
    side = float(np.hypot(*right))
    return square_quad(centre, VIEW_SIDE * side, float(np.arctan2(right[1], right[0])))


def view_of_size(middle: np.ndarray, size: float, turn_rad: float) -> np.ndarray:
    """The network's square about a face by the mean of its five points, px, its size as
    `singleshot.size_of` has it, and its clockwise turn."""
    down = np.array([-np.sin(turn_rad), np.cos(turn_rad)])
    return square_quad(middle + BELOW_MIDDLE * size * down, 2 * VIEW_SIDE * size, turn_rad)


def view_of_box(box: np.ndarray, angle_rad: float = 0.0) -> np.ndarray:
    """The network's square about a cascade's box [x0,y0,x1,y1], turned clockwise by the angle."""
    side = float(box[2] - box[0])
    down = np.array([-np.sin(angle_rad), np.cos(angle_rad)])
    centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2 + CENTRE_BELOW_BOX * side * down
    return square_quad(centre, VIEW_SIDE * CROP_PER_BOX * side, angle_rad)


class BuiltinLandmarks:
    """LandmarkNet, run twice: about the proposal, then about the face it found there."""

    name = "builtin"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.network = networks.load("landmarks", device)

    def __call__(self, photo: np.ndarray, views: list[np.ndarray], passes: int = 2) -> Landmarks:
        """
        Args:
            photo: uint8 [H,W,3].
            views: squares [4,2] px about the proposals (`view_of_box`, `view_of_points`).
            passes: of refinement after the first look.

        Returns: Landmarks of every proposal, faces or not.
        """
        found = self._look(photo, views)
        for i in range(passes):
            again = [view_of_points(points) for points in found.points]
            grown = 1.0 if i + 1 < passes else 1.08  # the last look sees two sizes
            once = self._look(photo, again)
            if grown == 1.0:
                found = once
                continue
            centres = [view.mean(0) for view in again]
            wider = [c + grown * (v - c) for c, v in zip(centres, again, strict=True)]
            twice = self._look(photo, wider)
            found = Landmarks(
                (once.points + twice.points) / 2,
                (once.visible + twice.visible) / 2,
                np.sqrt(once.score * twice.score),
            )
        return found

    def glance(self, photo: np.ndarray, views: list[np.ndarray]) -> Landmarks:
        """A first look of half the cost, not averaged with that at the mirror images."""
        return self._look(photo, views, mirrored=False)

    def _look(self, photo: np.ndarray, views: list[np.ndarray], mirrored: bool = True) -> Landmarks:
        """One pass over all views, averaged with that over their mirror images."""
        if not views:
            return Landmarks(np.zeros((0, 68, 2), np.float32), np.zeros((0, 68)), np.zeros(0))
        size = self.network.size
        crops = np.stack([cut(photo, view, size) for view in views])
        images = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            a = self.network(images)
            b = self.network(images.flip(-1)) if mirrored else None
        if b is None:
            return _placed(a.points, a.visible.sigmoid(), a.face.sigmoid(), views, size)
        mirror = torch.from_numpy(MIRROR).to(self.device)
        flipped = b.points[:, mirror] * torch.tensor([-1.0, 1.0], device=self.device)
        points = (a.points + flipped + torch.tensor([1.0, 0.0], device=self.device)) / 2
        visible = (a.visible + b.visible[:, mirror]).div(2).sigmoid()
        score = (a.face + b.face).div(2).sigmoid()
        return _placed(points, visible, score, views, size)


def _placed(
    points: torch.Tensor,
    visible: torch.Tensor,
    score: torch.Tensor,
    views: list[np.ndarray],
    size: int,
) -> Landmarks:
    """Landmarks with points [K,68,2] in sides of their views moved to the photo."""
    moved = [
        to_photo(p * size, view, size) for p, view in zip(points.cpu().numpy(), views, strict=True)
    ]
    return Landmarks(np.stack(moved).astype(np.float32), visible.cpu().numpy(), score.cpu().numpy())


class FanLandmarks:
    """face-alignment's FAN, with weights that semedit verified."""

    name = "face-alignment"
    needs = ("2dfan4",)

    def __init__(self, device: str = "cpu") -> None:
        torchvision_ops.ensure()
        from face_alignment.models import FAN

        self.device = device
        network = FAN(4)
        state = weights.load_pickle(weights.resolve("2dfan4"))
        network.load_state_dict(state)
        self.network: Any = network.eval().requires_grad_(False).to(device)

    def __call__(self, photo: np.ndarray, boxes: list[np.ndarray]) -> Landmarks:
        """
        Args:    photo uint8 [H,W,3]; boxes [x0,y0,x1,y1] px.
        Returns: Landmarks; FAN knows no visibility: its heat maps' peaks stand in for it.
        """
        from face_alignment.utils import flip

        out = []
        views = []
        for x0, y0, x1, y1 in boxes:
            # FAN's own crop: 200 px of head in a 256 px view, centred a little above the box.
            side = (x1 - x0 + y1 - y0) / 195.0 * 200.0
            centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2 - 0.12 * (y1 - y0)])
            views.append(square_quad(centre, side))
        for view in views:
            crop = torch.from_numpy(cut(photo, view, 256, pad=False).copy()).to(self.device)
            image = crop.permute(2, 0, 1)[None].float() / 255
            with torch.inference_mode():
                heat = self.network(image)[-1]
                heat = heat + flip(self.network(flip(image))[-1].clone(), is_label=True)
            points, peaks = _peaks(heat[0].cpu().numpy())
            out.append((to_photo(points * 4, view, 256), peaks / 2))
        points = np.array([o[0] for o in out], np.float32).reshape(-1, 68, 2)
        visible = np.clip(np.array([o[1] for o in out]).reshape(-1, 68), 0, 1)
        return Landmarks(points, visible, visible.mean(1))


def _peaks(heat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of heat maps [68,64,64], moved a quarter pixel towards the higher neighbour.

    Returns: points [68,2], px of the heat map with centres at + 0.5; peak values [68].
    """
    count, _, width = heat.shape
    best = heat.reshape(count, -1).argmax(1)
    y, x = np.divmod(best, width)
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), mode="edge")
    k = np.arange(count)
    dx = np.sign(padded[k, y + 1, x + 2] - padded[k, y + 1, x])
    dy = np.sign(padded[k, y + 2, x + 1] - padded[k, y, x + 1])
    return np.stack([x + 0.5 + dx / 4, y + 0.5 + dy / 4], 1), heat.reshape(count, -1).max(1)
