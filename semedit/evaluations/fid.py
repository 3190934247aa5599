"""`semedit eval fid`: how far a generator's pictures are from true ones, as sets.

    fid   Fréchet distance of the features of n random faces and of n true pictures
    kid   kernel distance of the same

Features are those of a network that is on the disk; which one decides about the figures, so it is
named with them. Figures of other networks, sizes or numbers of pictures do not compare.

Source: Heusel et al. 2017, arXiv:1706.08500; Binkowski et al. 2018, arXiv:1801.01401.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from semedit import cameras, losses, metrics
from semedit.datasets.labelled import read_labelled
from semedit.datasets.posed import INDEX, Poses, read_faces
from semedit.errors import InputError, OptionError
from semedit.evaluations.styles import deep_features
from semedit.generators.contract import Generator

Progress = Callable[[int, int], None]
NAMES = {"faces": "the built-in face network", "lpips": "AlexNet as LPIPS weighs it"}
SPREAD_RAD = (0.3, 0.155)  # yaw and pitch of random cameras where the data has none


@dataclass(frozen=True)
class FidEvaluation:
    """What is compared.

    count     pictures of each set
    features  "faces": the built-in face network; "lpips": AlexNet, if its weights are there
    psi       truncation of the generator's codes
    batch     pictures drawn together
    seed      of z and cameras, and of which true pictures are taken
    """

    count: int = 1000
    features: Literal["faces", "lpips"] = "faces"
    psi: float = 1.0
    batch: int = 8
    seed: int = 0

    def __call__(
        self, generator: Generator, data: Path, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Compare.

        Args:    data: rendered heads, pictures with cameras as EG3D has them, or CelebAMask-HQ.
        Returns: fid, kid; n, resolution, features: what they are of.
        Raises:  InputError: no such data, or fewer pictures than two.
                 OptionError: the generator draws no random faces.
        """
        if not hasattr(generator, "mapping") or not getattr(generator, "z_dim", 0):
            raise OptionError(f"{generator.name} draws no random faces")
        true, poses = read_pictures(data, generator.resolution, self.count, self.seed)
        if len(true) < 2:
            raise InputError(f"{data} holds {len(true)} pictures: too few to compare")
        tell = progress or (lambda done, total: None)
        features = _features(self.features, generator.device)
        real, fake = [], []
        for part in true.split(self.batch):
            real.append(features(part.to(generator.device)).cpu())
        for images in self._drawn(generator, len(true), poses):
            fake.append(features(images).cpu())
            tell(sum(map(len, fake)), len(true))
        a, b = torch.cat(real), torch.cat(fake)
        return {
            "fid": round(metrics.frechet(a, b), 5),
            "kid": round(metrics.kernel_distance(a, b), 7),
            "n": len(true),
            "resolution": generator.resolution,
            "features": f"{self.features}, {a.shape[1]} of {NAMES[self.features]}",
        }

    @torch.no_grad()
    def _drawn(self, generator: Generator, count: int, poses: Poses | None) -> Iterator[Tensor]:
        """Random faces [b,3,R,R] seen by random cameras, as files would hold them."""
        numbers = torch.Generator().manual_seed(self.seed)
        for begin in range(0, count, self.batch):
            n = min(self.batch, count - begin)
            z = torch.randn(n, generator.z_dim, generator=numbers)
            six = torch.randn(n, 6, generator=numbers)
            if poses is None:
                yaw, pitch = (six[:, i] * s for i, s in enumerate(SPREAD_RAD))
                c = cameras.orbit(yaw, pitch)
            else:
                c = cameras.from_six(poses.mean + six @ poses.factor.t())
            z, c = z.to(generator.device), c.to(generator.device)
            codes = generator.mapping(z, c, truncation_psi=self.psi)
            yield generator.synthesis(codes, c).image.clamp(-1, 1)


def read_pictures(
    data: Path, resolution: int, count: int, seed: int
) -> tuple[Tensor, Poses | None]:
    """Up to `count` true pictures float32 [n,3,R,R] in [-1,1], and the spread of their cameras."""
    numbers = np.random.default_rng(seed)
    if (data / "heads.json").is_file() or (data / INDEX).is_file():
        views = read_faces(data, resolution)
        flat = views.images.reshape(-1, *views.images.shape[2:])
        chosen = np.sort(numbers.permutation(len(flat))[:count])
        pixels = torch.from_numpy(flat[chosen])
        poses = Poses.of(views.c.reshape(-1, 25))
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1, poses
    labelled = read_labelled(data, resolution)
    every = np.concatenate([labelled.train, labelled.held])
    return labelled.read(np.sort(numbers.permutation(every)[:count]))[0], None


def _features(name: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Pictures -> [N,C], means over the picture of a network's last level."""
    if name == "faces":
        return lambda images: deep_features([images])
    network = losses.perceptual(name, device)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return network.features(images)[-1].mean((2, 3))

    return features
