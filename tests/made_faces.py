"""Schematic faces, and a pipeline that is shown them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semedit.faces import (
    align,
    detect,
    networks,
    pipeline,
)


def a_face(x: float = 200.0, y: float = 180.0, scale: float = 100.0) -> np.ndarray:
    """68 landmarks of a schematic face, mirror-symmetric about x, eyes `0.4 * scale` apart."""
    half = np.zeros((68, 2))
    half[:17] = [[np.cos(t), np.sin(t)] for t in np.linspace(np.pi * 1.02, -np.pi * 0.02, 17)]
    half[:17] = half[:17] * [0.5, 0.75] + [0, -0.1]
    half[17:22] = np.linspace([-0.35, -0.3], [-0.08, -0.3], 5)
    half[27:31] = np.linspace([0, -0.15], [0, 0.1], 4)
    half[31:36] = np.linspace([-0.1, 0.15], [0.1, 0.15], 5)
    half[36:42] = [[-0.28, -0.15], [-0.24, -0.18], [-0.16, -0.18], [-0.12, -0.15]] + [
        [-0.16, -0.12],
        [-0.24, -0.12],
    ]
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False) + np.pi
    half[48:60] = np.stack([0.2 * np.cos(turn), 0.35 + 0.08 * np.sin(turn)], 1)
    turn = np.linspace(0, 2 * np.pi, 8, endpoint=False) + np.pi
    half[60:68] = np.stack([0.15 * np.cos(turn), 0.35 + 0.03 * np.sin(turn)], 1)
    for i in (*range(17, 22), *range(36, 42)):
        half[align.MIRROR[i]] = half[i] * [-1, 1]
    return half * scale + [x, y]


def turned(points: np.ndarray, angle: float) -> np.ndarray:
    """Points turned clockwise about their mean."""
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - points.mean(0)) @ rotation.T + points.mean(0)


def photo(height: int = 400, width: int = 420) -> np.ndarray:
    """A smooth colourful picture."""
    y, x = np.mgrid[:height, :width]
    planes = [np.sin(x / 30), np.cos(y / 25), np.sin((x + y) / 40)]
    return np.uint8(127 + 100 * np.stack(planes, -1))


class Fixed:
    """A detector that always sees the same faces."""

    name = "fixed"

    def __init__(self, faces: list[np.ndarray]) -> None:
        self.faces = faces

    def __call__(self, _: np.ndarray) -> list[detect.Detection]:
        return [
            detect.Detection(detect.box_of(p), 1.0, landmarks=p, visible=np.ones(68))
            for p in self.faces
        ]


def a_pipeline(monkeypatch: pytest.MonkeyPatch, seen: list[np.ndarray], **options: object):
    """A FacePipeline with random networks and given faces."""
    torch.manual_seed(0)
    made = {name: networks.build(name).eval() for name in networks.KINDS}
    monkeypatch.setattr(networks, "load", lambda name, device="cpu": made[name])
    monkeypatch.setattr(pipeline, "detector", lambda name, device: Fixed(seen))
    options = {"size": 64, "landmarks": "builtin", "parse": "builtin", "pose": "builtin"} | options
    return pipeline.FacePipeline(**options)  # type: ignore[arg-type]
