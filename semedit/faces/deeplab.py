"""DeepLabv3 for the eight components of a face, from torchvision, trained by `semedit train
deeplab`; its weights are the user's `deeplab` (`semedit weights add deeplab FILE`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from semedit import weights
from semedit.errors import OptionError, WeightsError
from semedit.faces.layers import fit
from semedit.faces.parsing import enlarge
from semedit.runtime import torchvision_ops

WEIGHTS = "deeplab"  # their name
BODIES = ("resnet50", "mobilenet")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, in [0,1]


class DeepLab(nn.Module):
    """Components of aligned crops.

    Source: Chen et al. 2017, arXiv:1706.05587, torchvision's formulation.

    Args: classes: of its answer. size: pixels a side that it looks at. body: "resnet50", or
          "mobilenet" for small machines.
    """

    def __init__(self, classes: int = 8, size: int = 512, body: str = "resnet50") -> None:
        super().__init__()
        torchvision_ops.ensure()
        from torchvision.models import segmentation

        if body not in BODIES:
            raise OptionError(f"DeepLab has no body {body!r}", f"there is {', '.join(BODIES)}")
        name = "deeplabv3_resnet50" if body == "resnet50" else "deeplabv3_mobilenet_v3_large"
        self.size, self.config = size, {"classes": classes, "size": size, "body": body}
        # No weights are asked for: torchvision would download them.
        self.network: Any = getattr(segmentation, name)(
            weights=None, weights_backbone=None, num_classes=classes
        )
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), False)
        self.mean: Tensor
        self.deviation: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [N,3,R,R] in [-1,1] -> logits [N,classes,size,size]."""
        scaled = (fit(images, self.size) + 1) / 2
        return self.network((scaled - self.mean) / self.deviation)["out"]


class DeepLabSegmenter:
    """DeepLab as a segmenter (faces.components)."""

    name = "deeplab"
    needs = (WEIGHTS,)

    def __init__(self, device: str = "cpu") -> None:
        tensors, metadata = weights.load(WEIGHTS)
        if metadata.get("kind") != WEIGHTS:
            raise WeightsError(f"{WEIGHTS} are not those of a DeepLab for face components")
        network = weights.built(lambda config: DeepLab(**config), metadata, WEIGHTS)
        weights.fill(network, tensors, WEIGHTS)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> probabilities [N,8,R,R] of COMPONENTS."""
        with torch.no_grad():
            seg = self.network(images.to(self.device))
        return enlarge(seg, images.shape[-1]).softmax(1)
