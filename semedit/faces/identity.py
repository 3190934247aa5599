"""How alike two faces are: embeddings whose cosine tells the same person from others.

IdentityNet   the built-in one, trained on rendered heads
ArcFace       facexlib's (Deng et al. 2019, arXiv:1801.07698), where its weights are on the disk
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import weights
from semedit.faces.layers import Pyramid, fit
from semedit.runtime import torchvision_ops

# The part of an aligned crop that ArcFace sees: rows and columns of its 256 px.
ROWS, COLUMNS = (35 / 256, 223 / 256), (32 / 256, 220 / 256)


def face_part(images: Tensor, size: int) -> Tensor:
    """The face of aligned crops [N,3,R,R], without most of hair and background: [N,3,size,size]."""
    images = fit(images, 256)
    top, bottom = (round(256 * v) for v in ROWS)
    left, right = (round(256 * v) for v in COLUMNS)
    return fit(images[:, :, top:bottom, left:right], size)


class IdentityNet(nn.Module):
    """Aligned crops -> unit embeddings, of the face without most of its hair and background."""

    def __init__(
        self,
        size: int = 112,
        widths: tuple[int, ...] = (24, 48, 80, 128, 160),
        depths: tuple[int, ...] = (1, 1, 1, 1),
        entries: int = 128,
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {
            "size": size,
            "widths": list(widths),
            "depths": list(depths),
            "entries": entries,
        }
        self.encoder = Pyramid(tuple(widths), tuple(depths))
        cells = (-(-size // 2 ** len(widths))) ** 2
        self.head = nn.Sequential(
            nn.Conv2d(widths[-1], 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * cells, entries),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1], aligned crops -> [N,entries], unit length; differentiable."""
        return F.normalize(self.head(self.encoder(face_part(images, self.size))[-1]).float())


class ArcFace:
    """IR-SE-50 of facexlib. Loaded here, because facexlib's own loader insists on CUDA."""

    name = "facexlib"
    needs = ("arcface",)

    def __init__(self, device: str = "cpu") -> None:
        torchvision_ops.ensure()
        from facexlib.recognition.arcface_arch import Backbone

        network: Any = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
        network.load_state_dict(weights.load_pickle(weights.resolve("arcface")))
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Aligned crops float32 [N,3,R,R] in [-1,1] -> unit embeddings [N,512]; differentiable."""
        return F.normalize(self.network(face_part(images.to(self.device), 112)))


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of unit embeddings [N,D]: [N], 1 for the same picture."""
    return torch.sum(a * b, -1)
