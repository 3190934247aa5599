"""Label maps of aligned crops, in CelebAMask-HQ's order whatever the network's own.

Back-ends: `builtin` (our FaceNet), `bisenet` (Yu et al. 2018, arXiv:1808.00897, as trained by
zllrunning) and `parsenet` (Chen et al. 2020, arXiv:2009.08709), both through facexlib.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from semedit import weights
from semedit.faces import networks
from semedit.faces.layers import fit
from semedit.runtime import torchvision_ops

# For each CelebAMask-HQ id, BiSeNet's own id of the same part.
BISENET_ORDER = (0, 1, 10, 6, 4, 5, 2, 3, 7, 8, 11, 12, 13, 17, 18, 9, 15, 14, 16)
SIZE = 512  # px that BiSeNet and ParseNet were trained at


class Parser(Protocol):
    """Takes images float32 [N,3,R,R] in [-1,1], returns seg logits [N,19,R,R].

    `logits` answers at the network's own size, in one look; gradients reach the images.
    """

    name: str
    needs: tuple[str, ...]

    def __init__(self, device: str = "cpu") -> None: ...

    def __call__(self, images: Tensor) -> Tensor: ...

    def logits(self, images: Tensor) -> Tensor: ...


class BuiltinParser:
    """FaceNet's label head, averaged over mirror images."""

    name = "builtin"
    needs: tuple[str, ...] = ("faces",)

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.network = networks.load("faces", device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,R,R]."""
        return enlarge(networks.describe(images.to(self.device)).seg, images.shape[-1])

    def logits(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,256,256]; no views are averaged."""
        return self.network(images.to(self.device)).seg


class BiSeNetParser:
    """facexlib's BiSeNet; its label order is changed to CelebAMask-HQ's."""

    name = "bisenet"
    needs: tuple[str, ...] = ("bisenet",)

    def __init__(self, device: str = "cpu") -> None:
        torchvision_ops.ensure()
        from facexlib.parsing.bisenet import BiSeNet

        network: Any = BiSeNet(num_class=19)
        network.load_state_dict(weights.load_pickle(weights.resolve("bisenet")))
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,R,R]."""
        with torch.inference_mode():
            return enlarge(self.logits(images), images.shape[-1])

    def logits(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,512,512]."""
        scaled = (fit(images.to(self.device), SIZE) + 1) / 2
        mean = scaled.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = scaled.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        return self.network((scaled - mean) / std)[0][:, BISENET_ORDER]


class ParseNetParser:
    """facexlib's ParseNet; it has CelebAMask-HQ's order."""

    name = "parsenet"
    needs: tuple[str, ...] = ("parsenet",)

    def __init__(self, device: str = "cpu") -> None:
        torchvision_ops.ensure()
        from facexlib.parsing.parsenet import ParseNet

        network: Any = ParseNet(in_size=SIZE, out_size=SIZE, parsing_ch=19)
        network.load_state_dict(weights.load_pickle(weights.resolve("parsenet")))
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,R,R]."""
        with torch.inference_mode():
            return enlarge(self.logits(images), images.shape[-1])

    def logits(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> seg logits [N,19,512,512]."""
        return self.network(fit(images.to(self.device), SIZE))[0]


def enlarge(seg: Tensor, size: int) -> Tensor:
    """Seg logits [N,19,S,S] at [N,19,size,size]."""
    if seg.shape[-1] == size:
        return seg
    shrink = seg.shape[-1] > size
    return F.interpolate(seg, (size, size), mode="bilinear", antialias=shrink)


PARSERS: Mapping[str, type[Parser]] = {
    "builtin": BuiltinParser,
    "bisenet": BiSeNetParser,
    "parsenet": ParseNetParser,
}
