"""Networks that tell real pictures from generated ones, and what keeps them honest.

    Discriminator       the residual network of StyleGAN2
    DualDiscriminator   one such network for pictures and one for label maps, of IDE-3D
    Augment             adaptive discriminator augmentation (ADA)

Source: Karras et al. 2020, arXiv:1912.04958 (StyleGAN2) and arXiv:2006.06676 (ADA); Sun et al.
2022 (IDE-3D), arXiv:2205.15517, supplement, figure 11.
Departs: pictures are halved by a 2x2 mean before the second convolution, a quarter of its work;
ADA draws from the augmentations that helped most in the paper's table: flips, similarities, colour.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.generators.parts.layers import Conv, Linear, activate, normalize

GROUP = 4  # pictures whose spread the last layers see


class Discriminator(nn.Module):
    """Pictures [N,inputs,R,R] -> logits [N].

    Args: resolution: R. channels: at R, R/2, ..., 4 pixels. inputs: channels of the pictures.
    """

    def __init__(self, resolution: int, channels: tuple[int, ...], inputs: int = 3) -> None:
        super().__init__()
        assert resolution == 4 * 2 ** (len(channels) - 1)
        self.colour = Conv(inputs, channels[0], kernel=1)
        self.blocks = nn.ModuleList(Halving(a, b) for a, b in pairwise(channels))
        self.last = Conv(channels[-1] + 1, channels[-1])
        self.hidden = Linear(channels[-1] * 16, channels[-1])
        self.out = Linear(channels[-1], 1)

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees [N,C]."""
        x = self.colour(images.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.last(torch.cat([x, spread(x)], 1))
        return activate(self.hidden(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.out(self.features(images))[:, 0].float()


class BranchedDiscriminator(Discriminator):
    """A discriminator with a linear layer beside its verdict, that guesses what made a picture.

    Args: outputs: numbers that it guesses, say of a pose.
    Source: Chan et al. 2021 (pi-GAN), arXiv:2012.00926; Verma and Raman 2025 (SemFaceEdit).
    """

    def __init__(
        self, resolution: int, channels: tuple[int, ...], inputs: int, outputs: int
    ) -> None:
        super().__init__(resolution, channels, inputs)
        self.branch = Linear(channels[-1], outputs)

    def judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [N] and guesses [N,outputs]."""
        features = self.features(images)
        return self.out(features)[:, 0].float(), self.branch(features).float()


class DualDiscriminator(nn.Module):
    """Pictures and label maps, each at two resolutions, and cameras -> logits [N,outputs].

    Each kind passes blocks of its own. Apart, it also gets a verdict of its own: two outputs, the
    variant (b) of the supplement, which the paper found better. Joint, the features of both are
    put together before their spread is taken: one output, variant (a).

    Args: resolution: R. channels: of the pictures' blocks at R, R/2, ..., 4 pixels; of_labels: of
          the label maps'. classes: of the label maps. c_dim: entries of a camera.
    """

    def __init__(
        self,
        resolution: int,
        channels: tuple[int, ...],
        of_labels: tuple[int, ...],
        classes: int = 19,
        c_dim: int = 25,
        joint: bool = False,
    ) -> None:
        super().__init__()
        assert resolution == 4 * 2 ** (len(channels) - 1) == 4 * 2 ** (len(of_labels) - 1)
        self.joint = joint
        self.pictures, self.maps = Branch(2 * 3, channels), Branch(2 * classes, of_labels)
        ends = (channels[-1], of_labels[-1])
        self.verdicts = nn.ModuleList(
            Verdict(width, c_dim) for width in ((sum(ends),) if joint else ends)
        )

    def forward(self, images: Tensor, maps: Tensor, c: Tensor) -> Tensor:
        """images [N,6,R,R]: the picture and the enlarged low one; maps [N,2K,R,R] likewise, in
        [-1,1]; c [N,c_dim] -> logits [N,1] or [N,2]: of pictures, of maps."""
        ends = [self.pictures(images), self.maps(maps)]
        if self.joint:
            ends = [torch.cat(ends, 1)]
        found = [verdict(x, c) for verdict, x in zip(self.verdicts, ends, strict=True)]
        return torch.stack(found, 1)


class Branch(nn.Module):
    """[N,inputs,R,R] -> features [N,C,4,4]."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.colour = Conv(inputs, channels[0], kernel=1)
        self.blocks = nn.ModuleList(Halving(a, b) for a, b in pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.colour(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return x


class Verdict(nn.Module):
    """Features [N,C,4,4] and cameras [N,c_dim] -> logits [N]: how far a mapped camera and what
    the features say of it point the same way."""

    def __init__(self, channels: int, c_dim: int) -> None:
        super().__init__()
        self.last = Conv(channels + 1, channels)
        self.hidden = Linear(channels * 16, channels)
        self.out = Linear(channels, channels)
        self.embed = Linear(c_dim, channels)
        self.camera = Linear(channels, channels)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = self.last(torch.cat([x, spread(x)], 1))
        said = self.out(activate(self.hidden(x.flatten(1))))
        mapped = activate(self.camera(normalize(self.embed(c))))
        return (said * mapped).sum(1).float() / math.sqrt(said.shape[1])


class Halving(nn.Module):
    """Residual block [N,inputs,H,W] -> [N,outputs,H/2,W/2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Conv(inputs, inputs)
        self.second = Conv(inputs, outputs)
        self.skip = Conv(inputs, outputs, kernel=1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.avg_pool2d(self.first(x), 2))
        return (y + self.skip(F.avg_pool2d(x, 2))) * math.sqrt(0.5)


def spread(x: Tensor) -> Tensor:
    """Standard deviation over groups of pictures, meant over everything else: [N,1,H,W].

    A batch that no group of GROUP divides is one group.
    """
    n, _, h, w = x.shape
    group = GROUP if n % GROUP == 0 else n
    y = x.float().view(group, n // group, *x.shape[1:])
    deviation = (y.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w).to(x.dtype)


class Memory(nn.Module):
    """How many steps were made: what has steps of its own, such as a regulariser, goes by it."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros([], dtype=torch.int64))


class Augment(nn.Module):
    """Random changes of what the discriminator sees, as often as it needs them.

    p, the chance of each change, follows r = E[sign D(x)] at real pictures: it rises while r is
    above the target, which shows that the discriminator knows them by heart.

    Args: target: of r; 0 leaves p at 0. kimg: thousands of pictures in which p may rise by 1.
    """

    p: Tensor

    def __init__(self, target: float = 0.0, kimg: float = 100.0) -> None:
        super().__init__()
        self.target, self.kimg = target, kimg
        self.register_buffer("p", torch.zeros([]))

    @torch.no_grad()
    def follow(self, real: Tensor) -> None:
        """Adjust p to the logits [N] of real pictures."""
        if self.target > 0:
            step = (real.sign().mean() - self.target).sign() * len(real) / (1000 * self.kimg)
            self.p.copy_((self.p + step).clamp(0, 0.9))

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [N,3,R,R] in [-1,1], changed; differentiable."""
        if float(self.p) == 0:
            return images
        theta = similarities(len(images), float(self.p))
        places = F.affine_grid(theta, list(images.shape), align_corners=False)
        moved = F.grid_sample(images, places, padding_mode="reflection", align_corners=False)
        return self._recoloured(moved)

    def _recoloured(self, images: Tensor) -> Tensor:
        n, p = len(images), float(self.p)

        def sometimes(values: Tensor, otherwise: float) -> Tensor:
            chosen = torch.rand(n, 1, 1, 1) < p
            return torch.where(chosen, values, torch.full_like(values, otherwise))

        images = images + sometimes(0.2 * torch.randn(n, 1, 1, 1), 0.0)
        images = images * sometimes((0.35 * torch.randn(n, 1, 1, 1)).exp(), 1.0)
        grey = images.mean(1, keepdim=True)
        return grey + (images - grey) * sometimes((0.5 * torch.randn(n, 1, 1, 1)).exp(), 1.0)


def similarities(n: int, p: float) -> Tensor:
    """Random flips, shifts, turns and sizes, each with chance p: [N,2,3] for affine_grid."""

    def sometimes(values: Tensor) -> Tensor:
        return values * (torch.rand(n) < p)

    flip = 1 - 2 * sometimes((torch.rand(n) < 0.5).float())
    angle = sometimes(math.pi * (2 * torch.rand(n) - 1))
    size = sometimes(0.2 * torch.randn(n)).exp()
    shift = torch.stack([sometimes(0.25 * (torch.rand(n) - 0.5)) for _ in range(2)], 1)
    cos, sin = angle.cos() * size, angle.sin() * size
    linear = torch.stack([cos * flip, -sin, sin * flip, cos], 1).view(n, 2, 2)
    return torch.cat([linear, 2 * shift[:, :, None]], 2)
