"""Checkpoints of the Swapping Autoencoder, which L2SAE is built on: `E.*` and `G.*`.

They hold no configuration; it is read off the shapes. Discriminators and counters stay behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import Tensors
from semedit.checkpoints.reader import Checkpoint

KIND = "l2sae"
OWN = ("E.", "G.")
FILTERS = re.compile(r"\.([Bb]lur|upsample)\.kernel$")  # which the code makes itself
ENCODER = re.compile(r"E\.DownToSpatialCode\.ResBlockDownBy(\d+)\.conv2\.Conv\.weight")
SUMMARY = re.compile(r"E\.DownToGlobalCode\.ConvLayerDownBy(\d+)\.Conv\.weight")
HEAD = re.compile(r"G\.HeadResnetBlock(\d+)\.conv1\.conv\.weight")
DECODER = re.compile(r"G\.UpsamplingResBlock(\d+)\.conv1\.conv\.weight")
NOISE = re.compile(r"G\.(HeadResnetBlock|UpsamplingResBlock)(\d+)\.conv[12]\.noise\.weight")
FIRST = 16  # in the name of the first block that doubles the side
USUAL = {4: 512, 5: 1024}  # doublings of the decoder -> pixels a side of the published faces


def matches(checkpoint: Checkpoint) -> bool:
    """An encoder and a decoder under the Swapping Autoencoder's names."""
    wanted = {"E.FromRGB.Conv.weight", "G.SpatialCodeModulation.scale.weight"}
    return wanted <= checkpoint.network()[2].keys()


def parts(checkpoint: Checkpoint) -> list[Part]:
    """Encoder and decoder, which are one network."""
    tensors = checkpoint.network()[2]
    kept = {k: v for k, v in tensors.items() if k.startswith(OWN) and not FILTERS.search(k)}
    ignored = tuple(k for k in tensors if k.startswith(OWN) and FILTERS.search(k))
    beside = tuple(k for k in tensors if not k.startswith(OWN))
    found = config(tensors)
    return [Part(KIND, found, completed(kept, found), ignored, beside)]


def config(tensors: Tensors) -> dict[str, Any]:
    """Fields of L2SAEConfig. The resolution, which weights do not tell, is that of the noise maps
    where some were kept, else what is usual for so deep a decoder."""
    decoder = _widths(tensors, DECODER, 1)
    first = tensors.get("G.HeadResnetBlock0.conv1.noise.fixed_noise")
    side = USUAL.get(len(decoder), 512)
    if first is not None:
        side = int(first.shape[-1]) * 2 ** len(decoder)
    structure, style = tensors["G.SpatialCodeModulation.scale.weight"].shape
    return {
        "resolution": side,
        "structure": int(structure),
        "style": int(style),
        "encoder": [int(tensors["E.FromRGB.Conv.weight"].shape[0]), *_widths(tensors, ENCODER, 0)],
        "summary": _widths(tensors, SUMMARY, 0),
        "head": _widths(tensors, HEAD, 1),
        "decoder": decoder,
        "noise": any(NOISE.fullmatch(key) for key in tensors),
    }


def completed(kept: Tensors, found: Mapping[str, Any]) -> dict[str, Any]:
    """With noise maps, where the file has none, drawn from seed 0, and a prior of no directions;
    found: the configuration."""
    side = int(found["resolution"]) // 2 ** len(found["decoder"])
    numbers = torch.Generator().manual_seed(0)
    added: dict[str, Any] = {}
    for key in sorted(kept):
        match = NOISE.fullmatch(key)
        name = key.removesuffix("weight") + "fixed_noise"
        if match and name not in kept:
            grown = 2 * int(match[2]) // FIRST if match[1] == "UpsamplingResBlock" else 1
            added[name] = torch.randn(1, 1, side * grown, side * grown, generator=numbers)
    entries = int(found["structure"]) * side**2 + int(found["style"])
    added |= {"prior.mean": torch.zeros(entries), "prior.basis": torch.zeros(0, entries)}
    return {**kept, **added}


def _widths(tensors: Tensors, pattern: re.Pattern[str], axis: int) -> list[int]:
    """Output channels of the blocks of a kind, in order of their numbers."""
    found = {int(m[1]): int(v.shape[axis]) for k, v in tensors.items() if (m := pattern.match(k))}
    return [found[number] for number in sorted(found)]


FORMAT = Format(
    "Swapping Autoencoder",
    "its files latest_checkpoint.pth: E.*, G.*",
    "not in the file; Adobe's own networks: non-commercial research",
    matches,
    parts,
)
