"""The built-in face networks: small, convolutional, trained on rendered heads.

    LandmarkNet   crop about a box   -> 68 landmarks, their visibility, is it a face at all
    FaceNet       aligned crop       -> label map and camera
    TraitNet      aligned crop       -> attributes
    JudgeNet      aligned crop       -> attributes; a second opinion, for evaluation only
    IdentityNet   aligned crop       -> embedding; see identity.py

All take float32 [N,3,R,R], sRGB in [-1,1], of any R and resize to their own `size`. Layers are
plain convolutions with batch normalisation, which both train and run fastest on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import weights
from semedit.faces.identity import IdentityNet
from semedit.faces.layers import Pyramid, TopDown, convolution, fit, folded
from semedit.faces.singleshot import DetectorNet
from semedit.media.labels import ATTRIBUTES, LABELS

POINTS = 68  # landmarks
# Label ids after mirroring the picture: left and right of eyes, brows and ears change places.
MIRROR_LABELS = (0, 1, 2, 3, 5, 4, 7, 6, 9, 8, *range(10, 19))
MIRROR_SIX = (-1.0, 1.0, -1.0, 1.0, -1.0, 1.0)  # what mirroring does to the camera numbers
SIX = 6  # camera numbers, see cameras.to_six
# What one unit of the camera head's output means: about the spread of each number in the data.
SIX_SCALE = (0.4, 0.25, 0.1, 0.1, 0.03, 0.03)


@dataclass(frozen=True)
class LandmarkOutput:
    """points [N,68,2] in sides of the crop (x right, y down, 0 to 1, a little beyond where the
    face leaves the crop); visible [N,68] and face [N] are logits."""

    points: Tensor
    visible: Tensor
    face: Tensor


class LandmarkNet(nn.Module):
    """Landmarks as the mean place of a heat map, plus a small correction from the whole view.

        p_k = sum_xy softmax(h_k)(x, y) * (x, y) + 0.1 * linear(coarsest level)

    Source: Sun et al. 2018, arXiv:1711.08229 (integral regression).
    """

    def __init__(
        self,
        size: int = 96,
        widths: tuple[int, ...] = (24, 48, 96, 144),
        depths: tuple[int, ...] = (1, 1, 2),
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {"size": size, "widths": list(widths), "depths": list(depths)}
        self.encoder = Pyramid(tuple(widths), tuple(depths))
        self.decoder = TopDown(tuple(widths)[1:])  # finest: a quarter of the input
        self.heat = nn.Conv2d(widths[1], POINTS, 1)
        cells = (size // 2 ** len(widths)) ** 2
        self.whole = nn.Linear(widths[-1] * cells, POINTS * 3 + 1)
        nn.init.normal_(self.whole.weight, std=1e-3)

    def forward(self, images: Tensor) -> LandmarkOutput:
        """images [N,3,R,R] in [-1,1], the square crop about one proposed face each."""
        maps = self.encoder(fit(images, self.size))
        heat = self.heat(self.decoder(maps[1:])[0]).float()
        whole = self.whole(maps[-1].flatten(1)).float()
        n, _, h, w = heat.shape
        chance = heat.flatten(2).softmax(-1).view(n, POINTS, h, w)
        x = (torch.arange(w, device=heat.device) + 0.5) / w
        y = (torch.arange(h, device=heat.device) + 0.5) / h
        mean = torch.stack([(chance.sum(2) * x).sum(-1), (chance.sum(3) * y).sum(-1)], -1)
        points = mean + 0.1 * whole[:, : 2 * POINTS].view(n, POINTS, 2)
        return LandmarkOutput(points, whole[:, 2 * POINTS : 3 * POINTS], whole[:, -1])


@dataclass(frozen=True)
class FaceOutput:
    """seg logits [N,19,S,S]; six [N,6] as cameras.to_six."""

    seg: Tensor
    six: Tensor


def every_second(seg: nn.ConvTranspose2d, features: Tensor, part: tuple[int, int]) -> Tensor:
    """Every second pixel of what a 2x2 transposed convolution gives, from (row, column) `part`.

    Training needs no more of a label map at a time. features [N,C,h,w] -> logits [N,19,h,w].
    """
    kernel = seg.weight.transpose(0, 1)[:, :, part[0], part[1], None, None]
    return F.conv2d(features, kernel, seg.bias)


class FaceNet(nn.Module):
    """Label map and camera of an aligned crop, from one backbone.

    The backbone sees the crop at half its size. What is thin (brows, lids, lips, chains) is drawn
    by a shallow branch at full size, which takes the backbone's features for what they mean.
    """

    def __init__(
        self,
        size: int = 256,
        widths: tuple[int, ...] = (24, 48, 72, 112, 160),
        depths: tuple[int, ...] = (1, 1, 1, 2),
        fine: int = 24,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {
            "size": size,
            "widths": list(widths),
            "depths": list(depths),
            "fine": fine,
            "hidden": hidden,
        }
        self.encoder = Pyramid(tuple(widths), tuple(depths))
        self.decoder = TopDown(tuple(widths))
        self.detail = convolution(3, fine, stride=2, kernel=5)
        self.meaning = nn.Conv2d(widths[0], fine, 1, bias=False)
        self.fuse = nn.Sequential(convolution(fine, fine), convolution(fine, fine))
        self.seg = nn.ConvTranspose2d(fine, len(LABELS), 2, 2)
        cells = (size // 2 ** (len(widths) + 1)) ** 2
        self.view = nn.Sequential(
            nn.Conv2d(widths[-1], 48, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(48 * cells, hidden),
            nn.ReLU(inplace=True),
        )
        self.camera = nn.Linear(hidden, SIX)
        self.register_buffer("six_scale", torch.tensor(SIX_SCALE), persistent=False)

    def forward(self, images: Tensor, part: tuple[int, int] | None = None) -> FaceOutput:
        """
        Args:
            images: [N,3,R,R] in [-1,1], aligned crops; R any, the outputs' S is `size`.
            part: (row, column), each 0 or 1: seg only for every second pixel from there
                [N,19,S/2,S/2]; training needs no more of it at a time.
        """
        images = fit(images, self.size)
        maps = self.encoder(F.avg_pool2d(images, 2))
        fused = self.decoder(maps)
        meaning = F.interpolate(self.meaning(fused[0]), scale_factor=2.0, mode="nearest")
        fine = self.fuse(self.detail(images) + meaning)
        seg = self.seg(fine) if part is None else every_second(self.seg, fine, part)
        six = self.camera(self.view(maps[-1])).float() * self.six_scale
        return FaceOutput(seg.float().contiguous(), six)

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps [N,C,H,W] of the encoder's first four levels, finest first: what the perceptual
        distance falls back to where lpips has no weights."""
        return self.encoder(F.avg_pool2d(fit(images, self.size), 2))[:4]


@dataclass(frozen=True)
class TraitOutput:
    """attributes logits [N,A]; seg logits [N,19,S/2,S/2], or None where not asked for."""

    attributes: Tensor
    seg: Tensor | None


class TraitNet(nn.Module):
    """Attributes of an aligned crop, looked for where they are.

    Features and colours are averaged over each label's own region, so that hair colour is judged
    on hair and lipstick on lips; and a small tower looks at shapes such as that of brows in the
    finest features and labels. The labels are the network's own, coarse ones.
    """

    def __init__(
        self,
        size: int = 128,
        widths: tuple[int, ...] = (24, 48, 72, 112, 160),
        depths: tuple[int, ...] = (1, 1, 1, 2),
        hidden: int = 128,
        tower: tuple[int, ...] = (64, 96, 128),
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {
            "size": size,
            "widths": list(widths),
            "depths": list(depths),
            "hidden": hidden,
            "tower": list(tower),
        }
        self.encoder = Pyramid(tuple(widths), tuple(depths))
        self.decoder = TopDown(tuple(widths))
        self.seg = nn.ConvTranspose2d(widths[0], len(LABELS), 2, 2)
        cells = (size // 2 ** len(widths)) ** 2
        self.view = nn.Sequential(
            nn.Conv2d(widths[-1], 48, 1, bias=False),
            nn.BatchNorm2d(48),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(48 * cells, hidden),
            nn.ReLU(inplace=True),
        )
        steps = [convolution(a, b, 2) for a, b in pairwise((widths[0] + len(LABELS), *tower))]
        self.tower = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        known = len(LABELS) * (widths[1] + 4) + 16 * tower[-1] + hidden
        self.traits = nn.Sequential(
            nn.Linear(known, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, len(ATTRIBUTES))
        )

    def forward(self, images: Tensor, part: tuple[int, int] | None = None) -> TraitOutput:
        """
        Args:
            images: [N,3,R,R] in [-1,1], aligned crops.
            part: (row, column), each 0 or 1: give seg as well, every second pixel from there.
        """
        images = fit(images, self.size)
        maps = self.encoder(images)
        fused = self.decoder(maps)
        seg = None if part is None else every_second(self.seg, fused[0], part).float()
        # What averaging the full map over 2x2 pixels would give.
        weight = self.seg.weight.transpose(0, 1).mean((2, 3), keepdim=True)
        coarse = F.conv2d(fused[0], weight, self.seg.bias)
        # While training, the label map answers for the labels only.
        area = (coarse.detach() if self.training else coarse).float().softmax(1)
        shapes = self.tower(torch.cat([fused[0], area.to(fused[0].dtype)], 1))
        known = [self._regions(images, fused[1], area), self.view(maps[-1]), shapes]
        attributes = self.traits(torch.cat([one.float() for one in known], 1))
        return TraitOutput(attributes.float(), seg)

    def _regions(self, images: Tensor, features: Tensor, area: Tensor) -> Tensor:
        """Mean features and colours over each label's region, and its size: [N,19*(C+4)]."""
        colours = F.avg_pool2d(images, 4)
        seen = torch.cat([features.float(), colours], 1).flatten(2)
        weight = F.avg_pool2d(area, 2).flatten(2)
        total = weight.sum(-1, keepdim=True)
        mean = weight @ seen.transpose(1, 2) / (total + 1.0)
        share = (total + 1.0).log() / 4.0
        return torch.cat([mean, share], -1).flatten(1)


class JudgeNet(nn.Module):
    """Attributes, by a plain network of another shape than TraitNet's."""

    def __init__(
        self, size: int = 128, widths: tuple[int, ...] = (16, 32, 64, 96, 128), hidden: int = 96
    ) -> None:
        super().__init__()
        self.size = size
        self.config = {"size": size, "widths": list(widths), "hidden": hidden}
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [convolution(before, width, stride=2, kernel=5 if before == 3 else 3)]
            layers += [convolution(width, width)] if before != 3 else []
            before = width
        self.body = nn.Sequential(*layers)
        cells = (size // 2 ** len(widths)) ** 2
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(before * cells, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, len(ATTRIBUTES)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """images [N,3,R,R] in [-1,1], aligned crops -> attribute logits [N,A]."""
        return self.head(self.body(fit(images, self.size))).float()


# Networks of aligned crops; the detector alone takes whole photographs.
KINDS: dict[str, type[nn.Module]] = {
    "landmarks": LandmarkNet,
    "faces": FaceNet,
    "traits": TraitNet,
    "judge": JudgeNet,
    "identity": IdentityNet,
}


def build(name: str, config: dict[str, Any] | None = None) -> nn.Module:
    """A face network with random weights; `config` as the network's own `config`."""
    kind = DetectorNet if name == "detector" else KINDS[name]
    return kind(**(config or {}))


@cache
def load(name: str, device: str = "cpu") -> Any:
    """A built-in face network with its shipped weights, in eval mode, without parameter gradients.

    Raises: WeightsError: the file is missing, or its tensors are not those of the network.
    """
    tensors, metadata = weights.load(name)
    network = weights.built(lambda config: build(name, config), metadata, name)
    weights.fill(network, tensors, name)
    network = folded(network.eval().requires_grad_(False)).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a weight file holds of a network: its state without batch normalisation's counters."""
    state = network.state_dict()
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


# Sides of the views in which labels are looked for, in sides of the crop. What one view takes for
# a hat, others see to be hair: what a network trained on rendered heads errs in differs from view
# to view, what it knows does not.
VIEWS = (1.0, 0.7, 0.85, 1.2)


def describe(images: Tensor, views: Sequence[float] = VIEWS) -> FaceOutput:
    """FaceNet's answer about aligned crops and their mirror images, averaged over several views.

    Args:    images float32 [N,3,R,R] in [-1,1], on the device to run on; views: sides of the
             views about the middle, 1 = the crop. The camera is that of the whole crop.
    Returns: FaceOutput; seg [N,19,S,S], means of log probabilities, S of the network.
    """
    network = load("faces", str(images.device))
    images = fit(images, network.size)
    with torch.inference_mode():
        whole = _mirrored(network, images)
        total, count = torch.zeros_like(whole.seg), torch.zeros_like(whole.seg[:1, :1])
        for side in views:
            seen = whole if side == 1 else _mirrored(network, _magnify(images, side))
            inside = _magnify(torch.ones_like(count), 1 / side, "zeros").floor()
            total += _magnify(seen.seg.log_softmax(1), 1 / side) * inside
            count += inside
    return FaceOutput(total / count, whole.six)


def six(images: Tensor) -> Tensor:
    """The camera numbers [N,6] of `describe` alone."""
    with torch.inference_mode():
        return _mirrored(load("faces", str(images.device)), images).six


def _mirrored(network: Any, images: Tensor) -> FaceOutput:
    """FaceNet's answer averaged with that about the mirror images."""
    here, there = network(images), network(images.flip(-1))
    return FaceOutput(
        (here.seg + there.seg.flip(-1)[:, MIRROR_LABELS]) / 2,
        (here.six + there.six * there.six.new_tensor(MIRROR_SIX)) / 2,
    )


def _magnify(maps: Tensor, side: float, beyond: str = "border") -> Tensor:
    """The part of maps [N,C,S,S] about their middle whose side is `side` times theirs, at S.

    Args: beyond: what lies outside: "border", the nearest pixel, or "zeros".
    """
    if side == 1:
        return maps
    matrix = maps.new_tensor([[side, 0, 0], [0, side, 0]]).expand(len(maps), 2, 3)
    grid = F.affine_grid(matrix, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, padding_mode=beyond, align_corners=False)


def traits(images: Tensor) -> Tensor:
    """TraitNet's answer about aligned crops, averaged with that about their mirror images.

    Args:    images float32 [N,3,R,R] in [-1,1], on the device to run on.
    Returns: logits [N,A] in the order of ATTRIBUTES.
    """
    network = load("traits", str(images.device))
    with torch.inference_mode():
        return (network(images).attributes + network(images.flip(-1)).attributes) / 2
