"""`semedit train heads-128`: a tri-plane generator and its encoder, together, on rendered heads.

Every step takes two views of each head. Some heads pass through the mapping network, whose z is
the heads' parameter vector (regression); the others through the encoder, which sees one view only
(auto-encoding). All are rendered in both views, so the view that the encoder has not seen is
learned like the one that it has.

    L = |I - I*| + edge |grad I - grad I*| + label CE(S, S*) + the same at low resolution
        + opacity CE(opacity, S* is not background) + consistency |M(z) - E(I_1, S_1, c_1)|^2

The first part of the run renders at half the neural resolution.

Departs from IDE-3D: regression in place of a discriminator.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit import metrics
from semedit.datasets.rendered import Pair, Views, read_views
from semedit.generators.parts.encoder import KIND, Encoder, EncoderConfig
from semedit.generators.triplane.triplane import Triplane, TriplaneConfig
from semedit.media.labels import LABELS
from semedit.trainers.loop import write_weights
from semedit.trainers.parallel import device_of
from semedit.trainers.parts.mean_style import set_mean_style
from semedit.trainers.parts.start_from import start_from_file, whole_training

SMALL = ("nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")


@dataclass(frozen=True)
class PictureTrainer:
    """Hyper-parameters of what compares drawn pictures and label maps with true ones."""

    batch_size: int = 4  # heads a step
    lr: float = 2e-3  # Adam; weights have unit variance (equalised)
    edge: float = 0.5  # weight of the differences between neighbouring pixels
    label: float = 0.15  # weight of the cross-entropy
    low: float = 0.5  # weight of the same losses before up-sampling
    small: float = 3.0  # weight of the pixels of eyes, brows, nose, mouth, glasses
    coarse: float = 0.3  # part of the run that renders at half the resolution
    held_out: int = 32  # heads kept for evaluation
    device: str = "auto"  # to train on; auto: a GPU where there is one


@dataclass(frozen=True)
class HeadsTrainer(PictureTrainer):
    """Hyper-parameters of heads-128 and its encoder."""

    name: ClassVar[str] = "heads-128"
    batch_size: int = 4  # heads a step, two views each
    lr: float = 8e-3  # Adam, both networks; weights have unit variance (equalised)
    opacity: float = 0.1  # weight of the cross-entropy of opaque and empty rays
    mapped: float = 0.25  # part of the heads that pass through the mapping network
    consistency: float = 0.3  # weight of the mapping network's distance from the encoder
    coarse: float = 0.5  # part of the run that renders at half the resolution
    start_from: str = ""  # generator's weight file, its encoder's beside it; "": random weights

    def start(self, data: Path) -> HeadsTask:
        """Read the data, make both networks."""
        views = read_views(data, TriplaneConfig().resolution)
        generator = Triplane(TriplaneConfig(z_dim=views.z.shape[1]), self.name)
        encoder = Encoder(encoder_config(generator))
        before = {}
        if self.start_from:
            before = start_from_file(generator, self.start_from)
            start_from_file(encoder, Path(self.start_from).with_name("encoder.safetensors"))
        return HeadsTask(self, views, generator, encoder, ("generator", "encoder"), before)


class PictureTask:
    """A generator, its encoder, their optimiser, and the terms that compare pictures.

    Args:
        trained: which of "generator" and "encoder" learn, as far as their parameters have
            gradients; the other one stays as it is.
        before: training of the files that it starts from.
        more: what else may be trained, by name.
    """

    def __init__(
        self,
        trainer: PictureTrainer,
        views: Views,
        generator: Triplane,
        encoder: Encoder,
        trained: tuple[str, ...],
        before: dict[str, Any] | None = None,
        more: dict[str, nn.Module] | None = None,
    ) -> None:
        self.trainer, self.views, self.before = trainer, views, before or {}
        self.device = device_of(trainer.device)
        self.generator, self.encoder = generator.to(self.device), encoder.to(self.device)
        known: dict[str, nn.Module] = {"generator": generator, "encoder": encoder, **(more or {})}
        self.modules = {name: known[name].to(self.device) for name in trained}
        self.averaged = trained
        parameters = [p for m in self.modules.values() for p in m.parameters() if p.requires_grad]
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "all": torch.optim.Adam(parameters, trainer.lr, betas=(0.9, 0.98), foreach=True)
        }
        self.size = len(views) - min(trainer.held_out, len(views) // 4)
        self.class_weights = class_weights(views.labels[: self.size]).to(self.device)
        self.weights = small_parts(trainer.small).to(self.device)

    def batch(self, indices: Tensor) -> Pair:
        """Two different views of each head, in random order."""
        count = self.views.c.shape[1]
        first = torch.randint(count, indices.shape)
        second = (first + torch.randint(1, count, indices.shape)) % count
        return self._pair(indices, first, second)

    def _pair(self, heads: Tensor, first: Tensor, second: Tensor) -> Pair:
        return self.views.pair(heads, first, second).to(self.device)

    def _half(self) -> torch.autocast:
        """Where operations that bear it are computed in bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def _update(self, loss: Tensor) -> None:
        """One step of the optimiser."""
        optimiser = self.optimisers["all"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    def _encode(self, images: Tensor, labels: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees in pictures with some noise and label maps not quite right."""
        with self._half():
            noisy = images + 0.03 * torch.randn_like(images)
            return self.encoder.look(noisy, wobble(labels), c)

    def _drawn(
        self, ws: Tensor, images: Tensor, labels: Tensor, c: Tensor, neural: int
    ) -> dict[str, Tensor]:
        """Terms of codes [B,num_ws,w_dim] drawn in V views each: images [B,V,3,R,R], labels
        [B,V,R,R], c [B,V,25]."""
        with self._half():
            planes = self.generator.planes({"ws": ws})
            output = self.generator.render(
                planes, c.flatten(0, 1), neural, jitter=True, keep_empty=0.25
            )
        assert output.low is not None
        truth = images.flatten(0, 1), labels.flatten(0, 1)
        high = self._losses(output.image, output.seg, *truth)
        low = self._losses(output.low.image, output.low.seg, *truth)
        return {
            "high": self._total(high),
            "low": self.trainer.low * self._total(low),
        }

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        trainer = self.trainer
        return terms["image"] + trainer.edge * terms["edge"] + trainer.label * terms["label"]

    def _losses(
        self, image: Tensor, seg: Tensor | None, images: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Terms at the resolution of `image`; images and labels are the true ones, full size."""
        assert seg is not None
        factor = images.shape[-1] // image.shape[-1]
        image = image.float()
        true = F.avg_pool2d(images, factor) if factor > 1 else images
        ids = labels[:, factor // 2 :: factor, factor // 2 :: factor]
        weight = self.weights[ids][:, None]
        across, down = differences(image - true)
        return {
            "image": ((image - true).abs() * weight).mean(),
            "edge": across.abs().mean() + down.abs().mean(),
            "label": F.cross_entropy(seg.float(), ids, self.class_weights),
        }

    def export(
        self,
        modules: dict[str, nn.Module],
        figures: dict[str, float],
        folder: Path,
        record: dict[str, Any],
    ) -> None:
        """Write generator and encoder as far as they were trained."""
        files: dict[str, tuple[str, Any, dict[str, str]]] = {
            "generator": (self.generator.name, self.generator.config, {"kind": "triplane"}),
            "encoder": ("encoder", self.encoder.config, {"kind": KIND}),
        }
        files["generator"][2]["encoder"] = "encoder"
        record = whole_training(record, self.before)
        for name, module in modules.items():
            file, config, more = files[name]
            path = folder / f"{file}.safetensors"
            write_weights(
                path, module.state_dict(), record, figures, self.views.about, config=config, **more
            )


class HeadsTask(PictureTask):
    """Both networks learn; see loop.Task."""

    trainer: HeadsTrainer

    def step(self, batch: Pair, progress: float) -> dict[str, float]:
        """One update of both networks."""
        trainer, config = self.trainer, self.generator.config
        neural = config.neural // 2 if progress < trainer.coarse else config.neural
        count = round(trainer.mapped * len(batch.z))
        with self._half():
            mapped = self.generator.mapping(batch.z, batch.c[:, 0])["ws"]
            noisy = batch.images[:, 0] + 0.03 * torch.randn_like(batch.images[:, 0])
            encoded = self.encoder(noisy, wobble(batch.labels[:, 0]), batch.c[:, 0])
            planes = self.generator.planes({"ws": torch.cat([mapped[:count], encoded[count:]])})
            output = self.generator.render(
                planes, batch.c.flatten(0, 1), neural, jitter=True, keep_empty=0.25
            )
        images, labels = batch.images.flatten(0, 1), batch.labels.flatten(0, 1)
        assert output.low is not None
        terms = self._losses(output.image, output.seg, images, labels)
        low = self._losses(output.low.image, output.low.seg, images, labels)
        terms["opacity"] = opacity_loss(output.low.opacity, labels)
        # The mapping network follows the encoder, which is not to give up what z cannot say.
        terms["near"] = (encoded.detach() - mapped).square().mean()
        loss = self._total(terms) + trainer.low * self._total(low)
        loss = loss + trainer.opacity * terms["opacity"] + trainer.consistency * terms["near"]
        self._update(loss)
        return {name: value.item() for name, value in terms.items()}

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """On the held-out heads: decibels of the encoder's own and other view and of the mapped
        z; share of right labels."""
        generator = cast(Triplane, modules.get("generator", self.generator))
        encoder = modules.get("encoder", self.encoder)
        if "generator" in modules:
            set_mean_style(generator.w_avg, generator.mapping_network, generator.z_dim)
        sums: dict[str, list[float]] = {}
        for heads in torch.arange(self.size, len(self.views)).split(8):
            batch = self._pair(heads, torch.zeros_like(heads), torch.ones_like(heads))
            c = batch.c.flatten(0, 1)
            encoded = encoder(batch.images[:, 0], batch.labels[:, 0], batch.c[:, 0])
            output = generator.render(generator.planes({"ws": encoded}), c)
            assert output.seg is not None
            errors = metrics.psnr(output.image.unflatten(0, (-1, 2)), batch.images)
            right = output.seg.unflatten(0, (-1, 2)).argmax(2) == batch.labels
            mapped = generator.mapping(batch.z, c)
            output = generator.render(generator.planes(mapped), c)
            regressed = metrics.psnr(output.image.unflatten(0, (-1, 2)), batch.images)
            for name, values in (
                ("own_db", errors[:, 0]),
                ("other_db", errors[:, 1]),
                ("mapped_db", regressed),
                ("own_labels", right[:, 0].float().mean((1, 2))),
                ("other_labels", right[:, 1].float().mean((1, 2))),
            ):
                sums.setdefault(name, []).extend(values.flatten().tolist())
        return {name: round(sum(v) / len(v), 4) for name, v in sums.items()}


def encoder_config(generator: Triplane) -> EncoderConfig:
    """The encoder that fits a generator."""
    return EncoderConfig(
        generator=generator.name,
        num_shape=generator.num_shape,
        num_texture=generator.num_ws - generator.num_shape,
        w_dim=generator.config.w_dim,
        resolution=generator.resolution,
    )


def class_weights(labels: Any) -> Tensor:
    """Weights [19] of the cross-entropy: rare classes count more, up to a weight of 8."""
    sample = torch.from_numpy(labels[:500].copy()).long().flatten()
    share = torch.bincount(sample, minlength=len(LABELS)).float() / len(sample)
    return (share.clamp(min=1e-6) ** -0.35).clamp(max=8.0)


def small_parts(weight: float) -> Tensor:
    """Pixel weights [19]: `weight` for the small parts that make a likeness, else 1."""
    return torch.tensor([weight if name in SMALL else 1.0 for name in LABELS])


def opacity_loss(opacity: Tensor | None, labels: Tensor) -> Tensor:
    """Cross-entropy of opacity [N,1,r,r] and what is not background in labels [N,R,R]."""
    assert opacity is not None
    true = F.adaptive_avg_pool2d((labels > 0).float()[:, None], opacity.shape[-1])
    return F.binary_cross_entropy(opacity.clamp(1e-4, 1 - 1e-4), true)


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels, across and down."""
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


def wobble(labels: Tensor, pixels: float = 1.5) -> Tensor:
    """Label maps [N,R,R] with outlines moved smoothly by a pixel or so, as a parser's are."""
    n, side, _ = labels.shape
    field = F.interpolate(torch.randn(n, 2, side // 8, side // 8), (side, side), mode="bilinear")
    field = field.to(labels.device)
    line = torch.arange(side, dtype=torch.float32, device=labels.device)
    rows = (line[:, None] + pixels * field[:, 0]).round().long().clamp(0, side - 1)
    columns = (line + pixels * field[:, 1]).round().long().clamp(0, side - 1)
    return labels[torch.arange(n, device=labels.device)[:, None, None], rows, columns]
