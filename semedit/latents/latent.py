"""Latent: the codes of inverted or edited faces, and how they become pictures again.

A latent never holds a network. Pivotal tuning is kept as the differences of the parameters it
changed, per face, and applied for the length of a call: the generator itself stays as loaded.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from semedit import cameras, weights
from semedit.errors import InputError, LatentError
from semedit.generators.contract import Generator
from semedit.latents.tone import MOST_NODES, Tone, join
from semedit.media import reading, valid_json

CODE, TUNED, COMPOSITE, TONE = "code.", "tuned.", "composite.", "tone."


# Held while a generator draws with a face's own weights in the place of its own: other threads,
# which read latents, shall not take those for the generator's.
_swapping = threading.RLock()


HEADER_BYTES = 8 << 20  # of a file's names, shapes and metadata


LONGEST_NAME = 255  # of a generator


MOST_LAYERS = 1000  # of optional codes: one for each edit of a chain


LARGEST = 1e4  # of codes and differences; those of networks are far below


PARTS = (CODE, TUNED, COMPOSITE, TONE)


# By how their names begin.
STORED = {CODE: "F32", TUNED: "F16", COMPOSITE: "F16", TONE: "F32", "c": "F32"}


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
    tone         of photographs of one tone, grey or sepia; None where all have colours
    """

    codes: dict[str, Tensor]
    c: Tensor
    generator: str
    fingerprint: str
    method: str
    tuned: dict[str, Tensor] | None = None
    composite: Composite | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    tone: Tone | None = None

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
            tone=None if self.tone is None else self.tone.of(rows),
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
            tone=None if self.tone is None else self.tone.to(device),
        )

    def save(self, path: str | Path) -> None:
        """Write as safetensors, atomically."""
        path = Path(path)
        tensors = {CODE + k: v.detach().float().cpu().contiguous() for k, v in self.codes.items()}
        tensors["c"] = self.c.detach().float().cpu().contiguous()
        for name, value in (self.tuned or {}).items():
            tensors[TUNED + name] = value.detach().half().cpu().contiguous()
        if self.composite is not None:
            for name in ("image", "mask"):
                value = getattr(self.composite, name).detach()
                tensors[COMPOSITE + name] = value.half().cpu().contiguous()
        if self.tone is not None:
            tensors[TONE + "curve"] = self.tone.curve.detach().float().cpu().contiguous()
            tensors[TONE + "share"] = self.tone.share.detach().float().cpu().contiguous()
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
    tone = join([x.tone for x in latents], [len(x) for x in latents])
    return replace(
        first, codes=codes, c=c, tuned=tuned or None, composite=_composites(latents), tone=tone
    )


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
        f"the latent belongs to generator {latent.generator} ({latent.fingerprint[:12]}), "
        f"not to {name} ({print_[:12]})",
        hint=f"name its generator with -w {latent.generator}, take an earlier step with --from "
        "(`latents` is the inversion), or invert the face again",
    )


def load(path: str | Path, generator: Generator | None = None) -> Latent:
    """Read a latent; with a generator given, refuse one that it did not make.

    Names, types and shapes are looked at before any tensor is read.

    Raises: LatentError: not a latent, cut short, NaN or infinity in it, wrong types or shapes, or
            made by another generator (both are named).
    """
    path = Path(path)
    with _opened(path) as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != "latent":
            raise LatentError(f"{path.name} is a safetensors file but not a latent")
        stored = {k: file.get_slice(k) for k in file.keys() if k == "c" or k.startswith(PARTS)}
        shapes = {k: tuple(v.get_shape()) for k, v in stored.items()}
        _check_stored(path.name, {k: v.get_dtype() for k, v in stored.items()}, shapes)
        if generator is not None:
            hollow = {k: torch.empty(shape, device="meta") for k, shape in shapes.items()}
            check(_assembled(path.name, hollow, metadata), generator, path.name)
        tensors = {k: file.get_tensor(k) for k in shapes}
    for name, value in tensors.items():
        low, high = value.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise LatentError(f"{path.name}: {name} holds NaN or infinity")
        if max(-low, high) > LARGEST:
            raise LatentError(f"{path.name}: {name} holds numbers above {LARGEST:g}")
    latent = _assembled(path.name, tensors, metadata)
    _check_cameras(path.name, latent.c, generator is not None and "camera" in generator.traits)
    return latent


def _assembled(label: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Latent:
    """A latent of what its file holds.

    Raises: LatentError: its metadata are damaged.
    """
    names = {key: metadata.get(key, "?") for key in ("generator", "fingerprint", "method")}
    if any(len(names[key]) > LONGEST_NAME for key in ("generator", "fingerprint")):
        raise LatentError(f"{label}: damaged metadata: too long a name of its generator")
    try:
        meta = reading.parse(metadata.get("meta", "{}"), {str: reading.plain})
    except ValueError as error:
        raise LatentError(f"{label}: damaged meta: {error}") from error
    box, tone = _under(tensors, COMPOSITE), _under(tensors, TONE)
    return Latent(
        codes=_under(tensors, CODE),
        c=tensors["c"],
        tuned=_under(tensors, TUNED) or None,
        composite=Composite(box["image"].float(), box["mask"].float()) if box else None,
        tone=Tone(tone["curve"], tone["share"]) if tone else None,
        meta=meta,
        **names,
    )


def _check_stored(
    label: str, types: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise LatentError unless a file's tensors are those of a latent of some faces."""
    if not any(k.startswith(CODE) for k in shapes) or shapes.get("c", ())[1:] != (25,):
        raise LatentError(f"{label} lacks codes or a camera label [N,25]")
    faces = shapes["c"][0]
    for name, shape in shapes.items():
        wanted = next(kind for part, kind in STORED.items() if name.startswith(part))
        if types[name] != wanted:
            raise LatentError(f"{label}: {name} is stored as {types[name]}, not as {wanted}")
        if 0 in shape or shape[:1] != (faces,):
            raise LatentError(f"{label}: {name} {shape} is not of {faces} faces, one at least")
    box = _under(shapes, COMPOSITE)
    if box and box.keys() != {"image", "mask"}:
        raise LatentError(f"{label} holds half a composite")
    if box and (box["image"][1:2], box["mask"][1:]) != ((3,), (1, *box["image"][2:])):
        raise LatentError(f"{label}: its composite is of two sizes")
    tone = _under(shapes, TONE)
    nodes = tone.get("curve", (0, 0))[1:2]
    if tone and (tone != {"curve": (faces, *nodes, 3), "share": (faces,)} or not _few(nodes)):
        raise LatentError(f"{label}: its tone is none")


def _few(nodes: tuple[int, ...]) -> bool:
    return len(nodes) == 1 and 2 <= nodes[0] <= MOST_NODES


def _check_cameras(label: str, c: Tensor, needed: bool) -> None:
    """Raise LatentError unless c [N,25] are cameras, or all zero where none is needed."""
    known = cameras.proper(c)
    if not (known | ~c.any(1)).all():
        raise LatentError(f"{label}: its camera label is not a camera")
    if needed and not known.all():
        raise LatentError(
            f"{label} has no camera, and its generator needs one",
            "run `semedit pose`, then `semedit invert --overwrite`",
        )


def check(latent: Latent, generator: Generator, label: str = "latent") -> None:
    """Raise LatentError unless every tensor of the latent fits the generator."""
    require_same(latent, str(generator.name), fingerprint(generator))
    n = len(latent)
    expected = {k: (n, *v.shape[1:]) for k, v in generator.mean_codes().items()}
    found = {k: tuple(v.shape) for k, v in latent.codes.items()}
    extra = generator.optional_codes()
    if extra.keys() & found.keys():  # all of them, of one number of layers
        layers = next(found[k][1:2] for k in extra if k in found)
        if layers > (MOST_LAYERS,):
            raise LatentError(f"{label}: codes of {layers[0]} layers, {MOST_LAYERS} at most")
        expected |= {k: (n, *layers, *v.shape[2:]) for k, v in extra.items()}
    if found != expected:
        raise LatentError(f"{label}: codes {found}, but {generator.name} takes {expected}")
    shapes = shapes_of(generator, any(k.startswith((PLANES, NOISE)) for k in latent.tuned or ()))
    box, side = latent.composite, generator.resolution
    if box is not None and tuple(box.image.shape) != (n, 3, side, side):
        raise LatentError(
            f"{label}: a composite {tuple(box.image.shape)} does not fit {generator.name}"
        )
    for name, value in (latent.tuned or {}).items():
        if tuple(value.shape) != (n, *shapes.get(name, (-1,))):
            raise LatentError(
                f"{label}: tuned {name} {tuple(value.shape)} does not fit {generator.name}"
            )


@torch.no_grad()
def shapes_of(generator: Generator, planes: bool) -> dict[str, tuple[int, ...]]:
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, whose header has a size that can be.

    Raises: LatentError: it is none, cut short, or too large.
    """
    if not reading.there(path):
        raise LatentError(f"{path} is not a file")
    try:
        with reading.opened(path, reading.MAX_BYTES) as (start, _):
            if int.from_bytes(start.read(8), "little") > HEADER_BYTES:
                raise LatentError(f"{path.name} is not a latent: too long a header")
        with safe_open(str(path), "pt") as file:
            yield file
    except (InputError, SafetensorError, OSError) as error:
        raise LatentError(f"{path.name} is cut short or not a latent: {error}") from None


def _under(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
