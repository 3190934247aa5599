"""Perceptual distances: LPIPS, or features of a network that is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import weights
from semedit.errors import OptionError
from semedit.faces import networks
from semedit.runtime import torchvision_ops


class Perceptual(Protocol):
    """A perceptual distance: embeddings whose squared differences add up to it."""

    name: str  # what a latent records: "lpips-alex", "faces"

    def features(self, image: Tensor) -> list[Tensor]:
        """Image [N,3,R,R] in [-1,1] -> maps [N,C_l,H_l,W_l]."""
        ...


def distance(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """sum over layers l of mean over positions |features_l - target_l|^2: [N]; no layers: 0."""
    if not features:
        return torch.zeros(1)
    terms = [
        (a - b).square().sum(1).flatten(1).mean(1) for a, b in zip(features, target, strict=True)
    ]
    return torch.stack(terms).sum(0)


def _unit(maps: Tensor) -> Tensor:
    """Unit length along channels, as LPIPS has it."""
    return maps / (maps.square().sum(1, keepdim=True) + 1e-10).sqrt()


LPIPS_SIDE = 256  # pixels it sees at most, as in StyleGAN2's projector and PTI


class Lpips:
    """LPIPS on AlexNet; the backbone's weights come from a verified file, never from the network.

    Source: Zhang et al. 2018, arXiv:1801.03924; the package `lpips` holds its linear layers.
    """

    name = "lpips-alex"
    weights = "alexnet"  # the row of weights.toml

    def __init__(self, device: torch.device | str = "cpu") -> None:
        torchvision_ops.ensure()
        import lpips

        backbone = weights.load_pickle(weights.resolve(self.weights))
        # pnet_rand: the package must not ask torchvision for weights, which would download them.
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        state = {
            key: backbone["features." + key.split(".", 1)[1]]  # slice2.3.bias is features.3.bias
            for key in network.net.state_dict()
        }
        network.net.load_state_dict(state)
        self._network = network.to(device).eval().requires_grad_(False)

    def features(self, image: Tensor) -> list[Tensor]:
        network = self._network
        if image.shape[-1] > LPIPS_SIDE:
            image = F.interpolate(image, (LPIPS_SIDE, LPIPS_SIDE), mode="area")
        maps = network.net(network.scaling_layer(image))
        # The linear layer weighs squared differences; its root weighs the embedding.
        roots = [lin.model[-1].weight.clamp(min=0).sqrt() for lin in network.lins]
        return [_unit(m) * r for m, r in zip(maps, roots, strict=True)]


class NetworkFeatures:
    """Unit-length features of a network as a perceptual distance.

    Source: Johnson et al. 2016, arXiv:1603.08155, with LPIPS' normalisation.

    Args: network: has `features(image [N,3,R,R]) -> maps`; name: what latents record.
    """

    def __init__(self, network: nn.Module, name: str) -> None:
        self._network = network.eval().requires_grad_(False)
        self.name = name

    def features(self, image: Tensor) -> list[Tensor]:
        return [_unit(m) for m in self._network.features(image)]  # type: ignore[operator]


class NoPerceptual:
    """No perceptual distance: pixels and labels alone."""

    name = "none"

    def features(self, image: Tensor) -> list[Tensor]:
        return []


def perceptual(name: str = "auto", device: torch.device | str = "cpu") -> Perceptual:
    """The perceptual distance by name.

    Args:   name: "lpips", "faces" (the built-in face network), or "auto": lpips when its backbone
            is on the disk, else faces; "none": always 0.
    Raises: WeightsError: the weights asked for are not there.
    """
    if name not in ("auto", "lpips", "faces", "none"):
        raise OptionError(f"there is no perceptual distance {name}: auto, lpips, faces or none")
    if name == "none":
        return NoPerceptual()
    if name == "lpips" or (name == "auto" and weights.on_disk(Lpips.weights)):
        return Lpips(device)
    return NetworkFeatures(networks.load("faces", str(device)), "faces")
