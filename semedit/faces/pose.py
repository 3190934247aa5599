"""The camera label c [N,25] of aligned crops.

Back-ends: `builtin` (our FaceNet: angles, focal length and centre) and `facexlib` (Hopenet's
angles, Ruiz et al. 2018, arXiv:1710.00925; focal length and centre are FaceNet's).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from semedit import cameras, weights
from semedit.faces import networks
from semedit.faces.layers import fit
from semedit.runtime import torchvision_ops


class Pose(Protocol):
    """Takes images float32 [N,3,R,R] in [-1,1], returns camera labels c float32 [N,25]."""

    name: str

    def __init__(self, device: str = "cpu") -> None: ...

    def __call__(self, images: Tensor) -> Tensor: ...


class BuiltinPose:
    """FaceNet's camera head, averaged over mirror images."""

    name = "builtin"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        networks.load("faces", device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> c float32 [N,25]."""
        return camera(networks.six(images.to(self.device)))


class HopenetPose:
    """Hopenet's yaw, pitch and roll in FaceNet's crop."""

    name = "facexlib"
    needs = ("hopenet",)

    def __init__(self, device: str = "cpu") -> None:
        torchvision_ops.ensure()
        from facexlib.headpose.hopenet_arch import HopeNet

        network: Any = HopeNet("resnet", [3, 4, 6, 3], 66)
        state = weights.load_pickle(weights.resolve("hopenet"))
        network.load_state_dict(state.get("params", state))
        self.network = network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """Images [N,3,R,R] in [-1,1] -> c float32 [N,25]."""
        images = images.to(self.device)
        scaled = (fit(images, 224) + 1) / 2
        mean = scaled.new_tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        std = scaled.new_tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        with torch.inference_mode():
            yaw, pitch, roll = self.network((scaled - mean) / std)
        six = networks.six(images).clone()
        # Its yaw is positive towards the picture's left.
        six[:, :3] = torch.deg2rad(torch.stack([-yaw, pitch, roll], -1))
        return camera(six)


def camera(six: Tensor) -> Tensor:
    """c [N,25] of the six numbers [N,6], kept within what a camera can be."""
    limit = six.new_tensor([1.6, 1.2, 1.6, 0.7, 0.4, 0.4])
    return cameras.from_six(torch.maximum(torch.minimum(six, limit), -limit).cpu())


POSES: Mapping[str, type[Pose]] = {"builtin": BuiltinPose, "facexlib": HopenetPose}
