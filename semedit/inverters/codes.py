"""Offsets of codes in units of their own spread: one learning rate for every generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from semedit import weights
from semedit.errors import OptionError, ShapeError
from semedit.generators import GENERATORS
from semedit.generators.contract import Generator
from semedit.inverters.descent import Descended, descend
from semedit.losses import Loss

SAMPLES = 512  # mapped to measure the spread of codes

SPACES = ("w", "w+")


def spread(generator: Generator, c: Tensor) -> dict[str, Tensor]:
    """Standard deviation of each entry of each code over random samples, [1, ...] like mean_codes.

    The samples are always the same, so that a step means the same in every run.
    """
    numbers = torch.Generator().manual_seed(0)
    z = torch.randn(SAMPLES, generator.z_dim, generator=numbers).to(c)
    with torch.no_grad():
        codes = generator.mapping(z, c[:1].expand(SAMPLES, -1))
    # Entries that never vary could never move; a hundredth of the mean spread lets them.
    deviations = {k: v.std(0, keepdim=True) for k, v in codes.items()}
    return {k: v.clamp(min=float(v.mean()) * 0.01 + 1e-8) for k, v in deviations.items()}


def layer_axis(name: str, code: Tensor) -> int:
    """Which axis of a code [N,layers,...] counts layers; ws [N,regions,layers,w_dim] have regions
    before them."""
    return 2 if name == "ws" and code.ndim == 4 else 1


@dataclass(eq=False)
class Offsets:
    """Codes that move away from a start: codes = start + scale * offset.

    Args: start: codes [N, ...]. scale: [1, ...]; codes without a scale stay. space: "w+" moves
          each layer alone, "w" all layers of a code (of a region) together.
    """

    start: Mapping[str, Tensor]
    scale: Mapping[str, Tensor]
    space: str = "w+"

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise OptionError(f"there is no space {self.space}; spaces: {', '.join(SPACES)}")
        self.leaves = {
            k: torch.zeros_like(self._leaf(k, v)).requires_grad_(True)
            for k, v in self.start.items()
            if k in self.scale
        }

    def _leaf(self, name: str, code: Tensor) -> Tensor:
        """A code, cut to one layer in W."""
        if self.space == "w+" or code.ndim < 3:
            return code
        return code.narrow(layer_axis(name, code), 0, 1)

    def codes(self) -> dict[str, Tensor]:
        moved = {k: self.start[k] + self.scale[k] * leaf for k, leaf in self.leaves.items()}
        return {**self.start, **moved}

    def size(self) -> Tensor:
        """Mean squared offset [N], in squared standard deviations."""
        sizes = [leaf.square().flatten(1).mean(1) for leaf in self.leaves.values()]
        return torch.stack(sizes).mean(0)

    def fitted(
        self,
        generator: Generator,
        c: Tensor,
        loss: Loss,
        prior_weight: float,
        steps: int,
        lr: float,
        progress: Callable[[], None],
        resolution: int | None = None,
    ) -> tuple[dict[str, Tensor], Descended]:
        """Codes [N, ...] after a descent of loss(G(codes, c)) + prior_weight * size, all faces as
        one batch, and how it ended. resolution: where G ends, if it can (trait "coarse").
        """
        ends = {} if resolution is None else {"resolution": resolution}

        def objective() -> Tensor:
            output = generator.synthesis(self.codes(), c, **ends)
            return loss(output) + prior_weight * self.size()

        final = descend(self.leaves.values(), objective, steps, lr, progress=progress)
        return {k: v.detach() for k, v in self.codes().items()}, final


def known_traits() -> dict[str, frozenset[str]]:
    """Traits of every generator on this disk, by the name of its weights, for messages about
    misfits; "encode" where the encoder lies beside that `load_generator` attaches."""
    found = {}
    for path in (*weights.rows.DATA.glob("*.safetensors"), *weights.files()):
        try:
            with safe_open(str(path), "pt") as file:
                metadata = file.metadata() or {}
        except (SafetensorError, OSError):
            continue  # damaged: whoever asks for it is told
        if metadata.get("kind") in GENERATORS:
            traits = frozenset(getattr(GENERATORS[metadata["kind"]], "traits", ()))
            encoder = path.with_name(metadata.get("encoder", "") + ".safetensors")
            found[path.stem] = traits | {"encode"} if encoder.is_file() else traits
    return found


def check_faces(generator: Generator, images: Tensor, labels: Tensor, c: Tensor) -> None:
    """Raise ShapeError unless images [N,3,R,R], labels [N,R,R], c [N,25] suit the generator, and
    are float32, whole numbers, float32."""
    n, size = len(images), generator.resolution
    wanted = ((n, 3, size, size), (n, size, size), (n, 25))
    found = (tuple(images.shape), tuple(labels.shape), tuple(c.shape))
    if found != wanted:
        raise ShapeError(f"{generator.name} takes images, labels, c of {wanted}, got {found}")
    kinds = [str(one.dtype).removeprefix("torch.") for one in (images, labels, c)]
    whole = labels.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
    if not (kinds[0] == kinds[2] == "float32" and whole):
        raise ShapeError(
            f"{generator.name} takes images, labels, c as float32, int64, float32, got "
            f"{', '.join(kinds)}"
        )
