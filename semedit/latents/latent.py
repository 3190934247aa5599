"""Latent: the codes of inverted or edited faces, and how they become pictures again.

A latent never holds a network. Pivotal tuning is kept as the differences of the parameters it
changed, per face, and applied for the length of a call: the generator itself stays as loaded.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from semedit import weights
from semedit.errors import LatentError
from semedit.media import valid_json

CODE, TUNED, COMPOSITE = "code.", "tuned.", "composite."


# Held while a generator draws with a face's own weights in the place of its own: other threads,
# which read latents, shall not take those for the generator's.
_swapping = threading.RLock()


PLANES, NOISE = "planes.", "noise."  # in `tuned`: what is added to planes and to noise maps


Codes = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Composite:
    """What surrounds an edit in the picture: outside `mask` the picture keeps `image`.

    image float32 [N,3,R,R] in [-1,1]; mask float32 [N,1,R,R] in [0,1], 1 = the generator's pixels.
    Valid in the latent's own camera only; other views are the generator's alone.
    """

    image: Tensor
    mask: Tensor

    def over(self, image: Tensor) -> Tensor:
        """The generator's image [N,3,R,R] inside the mask, the kept one outside."""
        mask = self.mask.to(image)
        return image * mask + self.image.to(image) * (1 - mask)


@dataclass(frozen=True, eq=False)
class Latent:
    """N faces in the code space of one generator.

    codes        name -> float32 [N, ...], as the generator's mapping gives them
    c            camera labels float32 [N,25]
    generator    its name; fingerprint: sha256 of its weights
    method       the inverter or editor that made it, with what came before: "hybrid", "hybrid+mask"
    tuned        parameter -> float16 difference [N, *shape], None when the weights are as loaded;
                 also "planes.NAME" and "noise.LAYER": what is added to these
    composite    the pixels kept around an edit, None when the picture is the generator's alone
    meta         what a reader may want to know: perceptual backbone, losses, options (JSON values)
    """

    codes: dict[str, Tensor]
    c: Tensor
    generator: str
    fingerprint: str
    method: str
    tuned: dict[str, Tensor] | None = None
    composite: Composite | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.c)

    def __getitem__(self, index: int) -> Latent:
        """One face of the batch, still with a batch axis of 1."""
        return self.take(slice(index, index + 1) if index != -1 else slice(-1, None))

    def take(self, rows: slice) -> Latent:
        """The faces in `rows`. Lists in meta with one entry a face are cut alike."""
        n = len(self)
        box = self.composite
        return replace(
            self,
            codes={k: v[rows] for k, v in self.codes.items()},
            c=self.c[rows],
            tuned=None if self.tuned is None else {k: v[rows] for k, v in self.tuned.items()},
            composite=None if box is None else Composite(box.image[rows], box.mask[rows]),
            meta={
                k: v[rows] if isinstance(v, list) and len(v) == n else v
                for k, v in self.meta.items()
            },
        )

    def to(self, device: torch.device | str) -> Latent:
        """The same latent on another device."""
        box = self.composite
        return replace(
            self,
            codes={k: v.to(device) for k, v in self.codes.items()},
            c=self.c.to(device),
            tuned=None if self.tuned is None else {k: v.to(device) for k, v in self.tuned.items()},
            composite=None if box is None else Composite(box.image.to(device), box.mask.to(device)),
        )

    def save(self, path: Path) -> None:
        """Write as safetensors, atomically."""
        tensors = {CODE + k: v.detach().float().cpu().contiguous() for k, v in self.codes.items()}
        tensors["c"] = self.c.detach().float().cpu().contiguous()
        for name, value in (self.tuned or {}).items():
            tensors[TUNED + name] = value.detach().half().cpu().contiguous()
        if self.composite is not None:
            for name in ("image", "mask"):
                value = getattr(self.composite, name).detach()
                tensors[COMPOSITE + name] = value.half().cpu().contiguous()
        metadata = {
            "kind": "latent",
            "generator": self.generator,
            "fingerprint": self.fingerprint,
            "method": self.method,
            "meta": valid_json.dumps(self.meta, sort_keys=True),
        }
        weights.write_tensors(path, tensors, metadata)


def stack(latents: Sequence[Latent]) -> Latent:
    """One latent of all faces of one generator; the first one's method and meta.

    A face without tuned weights, or without kept pixels, gets differences of zero, or a composite
    that shows the generator's pixels everywhere, when others have some; optional codes of fewer
    layers, or none, are filled with zeros, which have no effect.

    Raises: LatentError: they belong to different generators.
    """
    first = latents[0]
    for other in latents[1:]:
        require_same(other, first.generator, first.fingerprint)
    like = {k: v[:1] for x in latents for k, v in (x.tuned or {}).items()}

    def differences(latent: Latent, name: str) -> Tensor:
        found = (latent.tuned or {}).get(name)
        if found is not None:
            return found
        return torch.zeros_like(like[name]).repeat_interleave(len(latent), 0)

    tuned = {k: torch.cat([differences(x, k) for x in latents]) for k in like}
    codes = _codes(latents)
    c = torch.cat([x.c for x in latents])
    return replace(first, codes=codes, c=c, tuned=tuned or None, composite=_composites(latents))


def _codes(latents: Sequence[Latent]) -> Codes:
    """Codes along the batch axis. Those that not all have, and whose layers (axis 1) differ in
    number, are optional ones (see Generator.optional_codes)."""
    like = {k: v for x in latents for k, v in x.codes.items()}
    layers = {k: max(x.codes[k].shape[1] for x in latents if k in x.codes) for k in like}

    def filled(latent: Latent, name: str) -> Tensor:
        shape = (len(latent), layers[name], *like[name].shape[2:])
        found = latent.codes.get(name)
        if found is not None and found.shape == shape:
            return found
        out = like[name].new_zeros(shape)
        if found is not None:
            out[:, : found.shape[1]] = found
        return out

    return {k: torch.cat([filled(x, k) for x in latents]) for k in like}


def _composites(latents: Sequence[Latent]) -> Composite | None:
    boxes = [x.composite for x in latents if x.composite is not None]
    if not boxes:
        return None

    def whole(n: int) -> Composite:
        image, mask = boxes[0].image[:1], boxes[0].mask[:1]
        shape = (n, 1, 1, 1)
        return Composite(torch.zeros_like(image).repeat(shape), torch.ones_like(mask).repeat(shape))

    found = [x.composite or whole(len(x)) for x in latents]
    return Composite(torch.cat([b.image for b in found]), torch.cat([b.mask for b in found]))


def fingerprint(generator: nn.Module) -> str:
    """sha256 over names, shapes and float32 values of all weights and buffers, in name order."""
    digest = hashlib.sha256()
    with _swapping:
        state = sorted(generator.state_dict().items())
    for name, value in state:
        digest.update(f"{name}{tuple(value.shape)}".encode())
        array = value.detach().cpu().contiguous()
        digest.update((array.float() if array.is_floating_point() else array).numpy().tobytes())
    return digest.hexdigest()


def require_same(latent: Latent, name: str, print_: str) -> None:
    """Raise LatentError, naming both, unless the latent was made by that generator."""
    if (latent.generator, latent.fingerprint) == (name, print_):
        return
    raise LatentError(
        f"The latent belongs to generator {latent.generator} ({latent.fingerprint[:12]}), "
        f"not to {name} ({print_[:12]}).",
        hint=f"Name its generator with -w {latent.generator}, take an earlier step with --from "
        "(`latents` is the inversion), or invert the face again.",
    )


def load(path: Path, generator: nn.Module | None = None) -> Latent:
    """Read a latent; with a generator given, refuse one that it did not make.

    Raises: LatentError: not a latent, cut short, NaN or infinity in it, wrong shapes, or made by
            another generator (both are named).
    """
    tensors, metadata = _read(path)
    if metadata.get("kind") != "latent":
        raise LatentError(f"{path.name} is a safetensors file but not a latent.")
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise LatentError(f"{path.name}: {name} holds NaN or infinity.")
    codes = _under(tensors, CODE)
    box = _under(tensors, COMPOSITE)
    c = tensors.get("c")
    if c is None or not codes or c.ndim != 2 or c.shape[1] != 25:
        raise LatentError(f"{path.name} lacks codes or a camera label [N,25].")
    try:
        meta = json.loads(metadata.get("meta", "{}"))
    except ValueError as error:
        raise LatentError(f"{path.name}: damaged meta: {error}") from error
    if box and box.keys() != {"image", "mask"}:
        raise LatentError(f"{path.name} holds half a composite.")
    latent = Latent(
        codes=codes,
        c=c,
        generator=metadata.get("generator", "?"),
        fingerprint=metadata.get("fingerprint", "?"),
        method=metadata.get("method", "?"),
        tuned=_under(tensors, TUNED) or None,
        composite=Composite(box["image"].float(), box["mask"].float()) if box else None,
        meta=meta,
    )
    if generator is not None:
        check(latent, generator, path.name)
    return latent


def check(latent: Latent, generator: nn.Module, label: str = "latent") -> None:
    """Raise LatentError unless every tensor of the latent fits the generator."""
    require_same(latent, str(generator.name), fingerprint(generator))
    n = len(latent)
    expected = {k: (n, *v.shape[1:]) for k, v in generator.mean_codes().items()}  # type: ignore[operator]
    found = {k: tuple(v.shape) for k, v in latent.codes.items()}
    optional: Any = getattr(generator, "optional_codes", dict)
    for k, v in optional().items():  # of any number of layers
        if k in found:
            expected[k] = (n, *found[k][1:2], *v.shape[2:])
    if found != expected:
        raise LatentError(f"{label}: codes {found}, but {generator.name} takes {expected}.")
    shapes = shapes_of(generator, any(k.startswith((PLANES, NOISE)) for k in latent.tuned or ()))
    for name, value in (latent.tuned or {}).items():
        if tuple(value.shape) != (n, *shapes.get(name, (-1,))):
            raise LatentError(
                f"{label}: tuned {name} {tuple(value.shape)} does not fit {generator.name}."
            )


@torch.no_grad()
def shapes_of(generator: Any, planes: bool) -> dict[str, tuple[int, ...]]:
    """Shape of everything that tuning may change: parameters, entries of the planes, noise."""
    shapes = {k: tuple(v.shape) for k, v in generator.named_parameters()}
    if planes and "noise" in generator.traits:
        shapes |= {NOISE + k: tuple(v.shape[1:]) for k, v in generator.noises().items()}
    if planes and "camera" in generator.traits:
        made = generator.planes(generator.mean_codes())
        shapes |= {PLANES + k: tuple(v.shape[1:]) for k, v in _entries(made).items()}
    return shapes


def _entries(planes: Any) -> dict[str, Tensor]:
    """Named planes; planes of another form have no names to tune by."""
    return planes if isinstance(planes, dict) else {}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise LatentError(f"{path} is not a file.")
    try:
        with safe_open(str(path), "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise LatentError(f"{path.name} is cut short or not a latent: {error}") from None


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
