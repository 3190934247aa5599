"""How alike two faces are: ArcFace (Deng et al. 2019, arXiv:1801.07698) through facexlib."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import weights
from semedit.faces.layers import fit
from semedit.runtime import torchvision_ops

# The part of an aligned crop that ArcFace sees: rows and columns of its 256 px.
ROWS, COLUMNS = (35 / 256, 223 / 256), (32 / 256, 220 / 256)


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
        images = fit(images.to(self.device), 256)
        top, bottom = (round(256 * v) for v in ROWS)
        left, right = (round(256 * v) for v in COLUMNS)
        face = fit(images[:, :, top:bottom, left:right], 112)
        return F.normalize(self.network(face))


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of unit embeddings [N,512]: [N], 1 for the same picture."""
    return torch.sum(a * b, -1)
