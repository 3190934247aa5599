"""Generators and networks small enough for tests of methods: random weights, whole protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import cameras, latents
from semedit.datasets.rendered import Views
from semedit.generators import Generator, Output
from semedit.generators.cnerf.cnerf import CNeRF
from semedit.generators.cnerf.config import CNeRFConfig
from semedit.generators.l2sae.l2sae import L2SAE, L2SAEConfig
from semedit.generators.parts.encoder import Encoder, EncoderConfig
from semedit.generators.stylegan2.stylegan2 import StyleGAN2, StyleGAN2Config
from semedit.generators.stylegan3.stylegan3 import StyleGAN3, StyleGAN3Config
from semedit.generators.surfaces.gram import GRAM, GRAMConfig
from semedit.generators.surfaces.intersections import Surfaces
from semedit.generators.surfaces.manifolds import Manifolds, ManifoldsConfig
from semedit.generators.triplane.eg3d import EG3D, EG3DConfig
from semedit.generators.triplane.ide3d import IDE3D, IDE3DConfig
from semedit.generators.triplane.triplane import Triplane, TriplaneConfig
from semedit.inverters import Hybrid, Optimize, Pivotal
from semedit.latents import Latent
from semedit.media.labels import ATTRIBUTES, LABELS

SAMPLES = 6  # per ray


class TinyGenerator(Generator):
    """Tri-planes straight from ws, rendered at 16 pixels; an encoder of random weights."""

    name = "tiny"
    resolution = 16
    z_dim = 6
    traits = frozenset({"camera", "seg", "encode"})
    tunable = ("colour.*",)

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.mapping_net = nn.Linear(self.z_dim, 8)
        self.backbone = nn.Linear(3 * 8, 3 * 6 * 8 * 8)
        self.shape = nn.Linear(6, 1 + len(LABELS))
        self.colour = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
        self.seeing = nn.Linear(3 * 16, 3 * 8)
        with torch.no_grad():
            self.backbone.weight.mul_(4)
            self.shape.weight.mul_(3)

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        w = self.mapping_net(z)
        w = self.mapping_net.bias + truncation_psi * (w - self.mapping_net.bias)
        return {"ws": w[:, None].repeat(1, 3, 1)}

    def mean_codes(self) -> dict[str, Tensor]:
        return {"ws": self.mapping_net.bias.detach().expand(1, 3, -1).clone()}

    def planes(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"maps": self.backbone(codes["ws"].flatten(1)).view(-1, 3, 8, 8, 6)}

    def render(self, planes: dict[str, Tensor], c: Tensor) -> Output:
        n, size = len(c), self.resolution
        origins, directions = cameras.rays(c, size)
        depths = torch.linspace(2.3, 3.1, SAMPLES)
        points = origins[:, :, None] + directions[:, :, None] * depths[:, None]
        flat = 2 * points.reshape(n, 1, -1, 3)
        maps = planes["maps"].expand(n, -1, -1, -1, -1).permute(0, 1, 4, 2, 3)
        axes = ((0, 1), (0, 2), (2, 1))
        read = [
            F.grid_sample(maps[:, i], flat[..., list(a)], align_corners=False)
            for i, a in enumerate(axes)
        ]
        features = torch.stack(read).sum(0)[:, :, 0].permute(0, 2, 1)
        features = features.reshape(n, size * size, SAMPLES, -1)
        geometry = self.shape(features)
        alpha = 1 - (-F.softplus(geometry[..., :1])).exp()
        weights = alpha * torch.cumprod(1 - alpha + 1e-6, 2) / (1 - alpha + 1e-6)
        image = (weights * self.colour(features).tanh()).sum(2)
        seg = (weights * geometry[..., 1:]).sum(2)
        depth = (weights * depths[:, None]).sum(2)
        return Output(
            image=image.permute(0, 2, 1).view(n, 3, size, size),
            seg=seg.permute(0, 2, 1).view(n, -1, size, size),
            depth=depth.permute(0, 2, 1).view(n, 1, size, size),
            low=None,
        )

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        return self.render(self.planes(codes), c)

    def encode(self, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        small = F.adaptive_avg_pool2d(images, 4).flatten(1)
        change = labels.float().mean((1, 2))[:, None] * 0.01
        return {"ws": (0.1 * self.seeing(small) + change).view(-1, 3, 8)}

    def sample(self, n: int, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """Codes and cameras of n random faces."""
        numbers = torch.Generator().manual_seed(seed)
        c = cameras.orbit(0.3 * torch.randn(n, generator=numbers), torch.zeros(n))
        return self.mapping(torch.randn(n, self.z_dim, generator=numbers), c), c


class Painter(Generator):
    """A generator that can be written out: of ws [N,2,304], layer 0 is the label logits of 4 x 4
    pixels, layer 1 the colours of 8 x 8; a camera's third entry brightens, `gain` colours.
    """

    name = "painter"
    resolution = 8
    z_dim = 4
    num_shape = 1
    traits = frozenset({"camera", "seg", "encode", "texture"})
    tunable = ("gain",)

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(0)
        self.gain = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("middle", 0.3 * torch.randn(1, 2, 304, generator=numbers))
        self.register_buffer("matrix", 0.2 * torch.randn(4, 2, 304, generator=numbers))

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1.0) -> dict[str, Tensor]:
        return {"ws": self.middle + truncation_psi * torch.einsum("nz,zld->nld", z, self.matrix)}

    def mean_codes(self) -> dict[str, Tensor]:
        return {"ws": self.middle.clone()}

    def planes(self, codes: dict[str, Tensor]) -> dict[str, Tensor]:
        labels, colours = codes["ws"][:, 0], codes["ws"][:, 1, :192]
        return {"labels": labels.view(-1, 19, 4, 4), "colours": colours.view(-1, 3, 8, 8)}

    def render(self, planes: dict[str, Tensor], c: Tensor) -> Output:
        image = self.gain * (planes["colours"] + 0.5 * c[:, 2].view(-1, 1, 1, 1))
        return Output(image=image, seg=planes["labels"].expand(len(c), -1, -1, -1))

    def synthesis(self, codes: dict[str, Tensor], c: Tensor, noise: str = "const") -> Output:
        return self.render(self.planes(codes), c)

    def encode(self, images: Tensor, labels: Tensor, c: Tensor) -> dict[str, Tensor]:
        seen = F.one_hot(labels[:, ::2, ::2], 19).permute(0, 3, 1, 2).flatten(1).float()
        rest = c[:, :1].expand(-1, 112)
        return {"ws": torch.stack([3 * seen, torch.cat([images.flatten(1), rest], 1)], 1)}


class Pixels:
    """A perceptual distance that can be written out: two layers, the second is coarse."""

    name = "pixels"

    def features(self, image: Tensor) -> list[Tensor]:
        return [2 * image, (image[..., ::2, ::2] + 1) ** 2]


@dataclass(frozen=True)
class TinyFaceOutput:
    seg: Tensor
    six: Tensor
    attributes: Tensor


class TinyFaceNet(nn.Module):
    """Stands in for the trained face network: random features and attributes."""

    size = 32

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 8, 3, 2, 1)
        self.attributes = nn.Linear(8, len(ATTRIBUTES))

    def features(self, images: Tensor) -> list[Tensor]:
        first = self.first(images).relu()
        return [first, self.second(first).relu()]

    def forward(self, images: Tensor) -> TinyFaceOutput:
        deep = self.features(images)[1].mean((2, 3))
        seg = torch.zeros(len(images), len(LABELS), *images.shape[-2:])
        return TinyFaceOutput(seg, torch.zeros(len(images), 6), 5 * self.attributes(deep))


def tiny_triplane() -> Triplane:
    """Random weights of the kind of heads-128, dense enough for something to be seen; with an
    encoder beside it."""
    torch.manual_seed(0)
    sizes = {"trunk": (12, 10, 8), "shape_channels": 4, "texture_channels": 6, "up": (6,)}
    more = {"grid": 12, "coarse": 12, "samples": 6, "skip_weight": 0.003}
    config: dict[str, Any] = {"z_dim": 5, "w_dim": 12, "hidden": 16, "branch": 6, "neural": 8}
    generator = Triplane(TriplaneConfig(**config | sizes | more), "small")
    with torch.no_grad():
        generator.shape_decoder.last.bias[0] = 0.5
    return generator.attach(tiny_encoder())


def tiny_encoder(angles: int = 0) -> Encoder:
    """Random weights of an encoder that fits `tiny_triplane`."""
    styles: dict[str, Any] = {"num_shape": 5, "num_texture": 5, "w_dim": 12}
    return Encoder(
        EncoderConfig(**styles, resolution=16, channels=(8, 8), hidden=16, angles=angles)
    )


# --- what tests of a trainer's equations share -------------------------------------------------


def tiny_views(
    count: int = 8, views: int = 2, parameters: int = 5, side: int = 16, kinds: int = 19
) -> Views:
    """Heads of noise: every pixel of pictures, label maps (of `kinds` labels), cameras differs."""
    numbers = np.random.default_rng(0)
    angles = torch.from_numpy(numbers.uniform(-0.4, 0.4, (2, count * views))).float()
    return Views(
        images=numbers.integers(0, 256, (count, views, side, side, 3), dtype=np.uint8),
        labels=numbers.integers(0, kinds, (count, views, side, side), dtype=np.uint8),
        c=cameras.orbit(angles[0], angles[1] / 2).view(count, views, 25),
        z=torch.from_numpy(numbers.normal(size=(count, parameters))).float(),
        about={},
    )


class Updates(list[tuple[str, Tensor]]):
    """The losses that a task's steps would have descended, in order: (optimiser, loss)."""

    def __init__(self, task: Any, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        patch.setattr(task, "_update", lambda name, loss: self.append((name, loss)))

    def one(self, name: str) -> Tensor:
        """The last loss of an optimiser."""
        return [loss for of, loss in self if of == name][-1]


class Calls(list[tuple[tuple[Any, ...], dict[str, Any], Any]]):
    """Calls of one function of an object, which is called as ever: (args, options, result)."""

    def __init__(self, owner: Any, name: str, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        before: Callable[..., Any] = getattr(owner, name)

        def noted(*args: Any, **options: Any) -> Any:
            found = before(*args, **options)
            self.append((args, options, found))
            return found

        patch.setattr(owner, name, noted)


def descend(loss: Tensor, parameters: Iterable[nn.Parameter], length: float = 1e-3) -> None:
    """A step of that length against the gradient."""
    chosen = [p for p in parameters if p.requires_grad]
    slopes = torch.autograd.grad(loss, chosen, retain_graph=True, allow_unused=True)
    norm = torch.stack([s.norm() for s in slopes if s is not None]).norm()
    with torch.no_grad():
        for parameter, slope in zip(chosen, slopes, strict=True):
            if slope is not None:
                parameter.sub_(slope * (length / norm))


def touched(loss: Tensor, module: nn.Module) -> bool:
    """Whether a loss says anything of a module's weights."""
    chosen = [p for p in module.parameters() if p.requires_grad]
    if not loss.requires_grad or not chosen:
        return False
    slopes = torch.autograd.grad(loss, chosen, retain_graph=True, allow_unused=True)
    return any(s is not None and bool((s != 0).any()) for s in slopes)


def small_stylegan2() -> StyleGAN2:
    """Random weights, noise that is seen."""
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(16, (12, 10, 8), 6, 12, mapping_layers=2), "small")
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return generator


def small_stylegan3(kind: str = "t") -> StyleGAN3:
    """Random weights, of configuration T or R."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"z_dim": 6, "w_dim": 12, "layers": 5, "channels": (8, 8, 8, 6, 6)}
    own = {"t": {}, "r": {"kernel": 1, "radial": True}}[kind]
    generator = StyleGAN3(StyleGAN3Config(16, **sizes, **own, first_cutoff=1.0, margin=4), "small")
    with torch.no_grad():
        generator.synthesis_network.input.affine.weight.normal_()
    return generator


SMALL_EG3D = EG3DConfig(
    resolution=32,
    neural=8,
    plane_resolution=16,
    plane_channels=4,
    channels=(12, 10, 8),
    z_dim=6,
    w_dim=12,
    decoder=16,
    features=8,
    up=(8, 6),
    up_input=16,
    samples=6,
    fine=6,
)


def small_eg3d(config: EG3DConfig = SMALL_EG3D) -> EG3D:
    """Random weights, noise that is seen, dense enough for something to be seen."""
    torch.manual_seed(0)
    generator = EG3D(config, "small")
    with torch.no_grad():
        generator.decoder.last.bias[0] = 2.0
        generator.decoder.last.weight[0] *= 4
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
    return generator


SMALL_IDE3D = IDE3DConfig(
    z_dim=6,
    w_dim=12,
    mapping_layers=2,
    trunk=(12, 10, 8),
    shape_channels=4,
    branches=(8, 6),
    texture_channels=4,
    features=6,
    decoder=16,
    neural=8,
    up=(8, 6),
    up_input=8,
    samples=6,
    fine=6,
    grid=8,
    density_start=2.0,
)


def small_ide3d() -> IDE3D:
    """Random weights; as many kinds of layers as the paper's."""
    torch.manual_seed(0)
    return IDE3D(SMALL_IDE3D, "small")


SMALL_SURFACES = {"count": 5, "first": 25.0, "last": 12.0, "width": 8, "depth": 2, "sphere": True}
SMALL_SURFACES |= {"centre": (0.0, 0.0, -1.5), "samples": 12, "near": 0.85, "far": 1.15}


def small_gram() -> GRAM:
    """Random weights, dense enough for surfaces to be told apart."""
    torch.manual_seed(0)
    surfaces = Surfaces.of(SMALL_SURFACES)
    config = GRAMConfig(
        resolution=16, z_dim=6, w_dim=12, width=16, depth=3, delta=0.5, surfaces=surfaces
    )
    return GRAM(config, "small")


def small_manifolds(**options: Any) -> Manifolds:
    """Random weights; two clubs, both seen."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "resolution": 16,
        "z_dim": 6,
        "w_dim": 12,
        "width": 16,
        "depth": 4,
        "appearance_depth": 3,
        "clubs": ("background", "face"),
        "delta": 0.5,
        "gain": 10.0,
        "surfaces": Surfaces.of(SMALL_SURFACES),
    }
    return Manifolds(ManifoldsConfig(**sizes | options), "small")


SMALL_L2SAE = L2SAEConfig(
    resolution=64,
    style=12,
    encoder=(4, 4, 6, 6, 8),
    summary=(10,),
    head=(8,),
    decoder=(8, 6, 6, 4),
    slicing="first",
    map_decoder=(6, 6, 4, 4),
    rank=3,
)


def small_l2sae() -> L2SAE:
    """Random weights, noise that is seen, a prior that spreads."""
    torch.manual_seed(0)
    generator = L2SAE(SMALL_L2SAE, "small").eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise.weight"):
                parameter.fill_(0.1)
        generator.prior.mean.normal_()
        generator.prior.basis.normal_()
    return generator


def small_pictures(n: int = 2) -> Tensor:
    numbers = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, 64, 64, generator=numbers) * 2 - 1


TINY_CNERF = CNeRFConfig(neural=6, z_dim=5, w_dim=6, width=8, samples=10)


SMALL_CNERF = replace(
    TINY_CNERF,
    regions=("background", "face", "eye", "mouth", "hair", "glasses"),
    layered=True,
    shape_sdf=True,
    sphere=0.6,
    beta=0.02,
    depth=0.185,
    skip_weight=0.0,
)


def make_cnerf(config: CNeRFConfig = TINY_CNERF) -> CNeRF:
    """Random weights, masks that matter."""
    torch.manual_seed(0)
    cnerf = CNeRF(config, "small").eval()
    with torch.no_grad():
        if config.sphere is not None:  # where distances start without a part of their own
            cnerf.local.sdf.weight.normal_(std=0.05), cnerf.local.sdf.bias.normal_(std=0.01)
        for reads in (cnerf.local.mask, cnerf.local.sdf, cnerf.local.rgb):
            reads.weight.mul_(4)
    return cnerf


def small_cnerf() -> CNeRF:
    """With stage 2, whose noise is seen."""
    cnerf = make_cnerf(replace(TINY_CNERF, up=(6, 5)))
    assert cnerf.stage2 is not None
    with torch.no_grad():
        for conv in cnerf.stage2.convs:
            conv.noise_strength.fill_(0.1)
    return cnerf


def random_cnerf_codes(cnerf: CNeRF, n: int = 1) -> Tensor:
    numbers = torch.Generator().manual_seed(1)
    config = cnerf.config
    shape = n, len(config.regions), config.layers, config.w_dim
    return torch.randn(*shape, generator=numbers)


SMALL_TRIPLANE = TriplaneConfig(
    z_dim=5,
    w_dim=12,
    hidden=16,
    trunk=(12, 10, 8),
    shape_channels=4,
    texture_channels=6,
    branch=6,
    neural=8,
    up=(6,),
    grid=12,
    coarse=12,
    samples=6,
    skip_weight=0.003,
)


SMALL_ENCODER = EncoderConfig(
    num_shape=5, num_texture=5, w_dim=12, resolution=16, channels=(8, 8), hidden=16
)


def small_triplane(seed: int = 0) -> Triplane:
    """Random weights, dense enough for something to be seen."""
    torch.manual_seed(seed)
    generator = Triplane(SMALL_TRIPLANE, "small")
    with torch.no_grad():
        generator.shape_decoder.last.bias[0] = 0.5
    return generator


def random_faces(generator: Any, n: int = 2) -> Latent:
    """Latents of random z."""
    numbers = torch.Generator().manual_seed(3)
    c = cameras.orbit(torch.linspace(-0.2, 0.2, n), 0.1)
    codes = generator.mapping(torch.randn(n, generator.z_dim, generator=numbers), c)
    print_ = latents.fingerprint(generator)
    return Latent({k: v.detach() for k, v in codes.items()}, c, generator.name, print_, "hybrid")


def shown_label(generator: Any, latent: Latent) -> str:
    """A label, not the background, that some but not all pixels of every face have."""
    seen = latents.synthesize(generator, latent).seg.argmax(1).flatten(1)
    for label, name in enumerate(LABELS):
        share = (seen == label).float().mean(1)
        if label and bool(((share > 0.02) & (share < 0.95)).all()):
            return name
    raise AssertionError("no such label")


def pair(make: Callable[[], Any]) -> tuple[Any, Latent, Latent, str]:
    """Generator, two faces with sharp labels, a donor, a region that both show."""
    generator = make().eval().requires_grad_(False)
    with torch.no_grad():
        generator.shape_decoder.last.bias[0] = 2.0  # something is seen, and its labels differ
        generator.shape_decoder.first.weight *= 3
        generator.shape_decoder.last.weight[1:] *= 15
    both = random_faces(generator, 2)
    return generator, both, random_faces(generator, 3)[2], shown_label(generator, both)


FAST_INVERTERS = {
    "optimize": Optimize(steps=4, perceptual="faces"),
    "pivotal": Pivotal(pivot_steps=3, steps=3, perceptual="faces"),
    "hybrid": Hybrid(steps=3, tune_steps=3, perceptual="faces"),
}
