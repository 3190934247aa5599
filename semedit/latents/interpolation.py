"""The way from one face to another: all of it, its shape alone, or its texture alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from semedit import cameras
from semedit.errors import TraitError
from semedit.generators.contract import Generator
from semedit.latents.latent import PLANES, Codes, Latent, require_same, stack
from semedit.latents.tone import Tone

Part = Literal["all", "shape", "texture"]
MASK = ("style", "where")  # the codes of a style mask


def between(
    generator: Generator, first: Latent, second: Latent, share: float, part: Part
) -> Latent:
    """A face on the straight line of codes, and of what was tuned, from one face to another.

    Args:    first, second: one face each. share: in [0,1], how far. part: what moves: all (camera
             too), shape (the first styles and the shape planes), or texture (all others); what
             does not move is the first face's.
    Returns: a latent of one face, without kept pixels.
    Raises:  TraitError: a part, but the generator mixes shape and texture.  LatentError: the faces
             belong to different generators.
    """
    if part != "all" and "texture" not in generator.traits:
        raise TraitError(
            f"{generator.name} does not keep shape and texture apart",
            hint="interpolate without --shape-only and --texture-only",
        )
    require_same(second, first.generator, first.fingerprint)
    both = stack([replace(x, composite=None) for x in (first, second)])
    masks = MASK if "where" in both.codes else ()  # other generators have a code "style", too
    codes = {k: _code(generator, v, share, part) for k, v in both.codes.items() if k not in masks}
    codes |= _mask(first.codes, second.codes, share if part != "shape" else 0.0)
    tuned = {
        k: torch.lerp(v[:1].float(), v[1:].float(), share if _moves(k, part) else 0.0)
        for k, v in (both.tuned or {}).items()
    }
    six = cameras.to_six(both.c)
    c = cameras.from_six(torch.lerp(six[:1], six[1:], share)).to(both.c)
    return replace(
        first,
        codes=codes,
        c=c if part == "all" else first.c,
        tuned=tuned or None,
        composite=None,
        tone=_tone(both, share if part != "shape" else 0.0),
        method="between",
        meta={"share": share, "part": part},
    )


def _tone(both: Latent, share: float) -> Tone | None:
    """Of two faces, one behind the other."""
    return None if both.tone is None else both.tone.between(share)


def _mask(first: Codes, second: Codes, share: float) -> Codes:
    """The style masks of both faces (see generators.triplane), one fading away, one appearing."""
    found = [
        (codes["style"], codes["where"] * weight)
        for codes, weight in ((first, 1 - share), (second, share))
        if "where" in codes and weight > 0
    ]
    if not found:
        return {}
    styles, wheres = zip(*found, strict=True)
    return {"style": torch.cat(styles, 1), "where": torch.cat(wheres, 1)}


def _code(generator: Generator, values: Tensor, share: float, part: Part) -> Tensor:
    """One code of both faces [2, ...] -> of the one between them [1, ...]."""
    mixed = torch.lerp(values[:1], values[1:], share)
    if part == "all":
        return mixed
    shape = torch.arange(values.shape[1], device=values.device) < generator.num_shape
    moves = shape if part == "shape" else ~shape
    return torch.where(moves[None, :, None], mixed, values[:1])


def _moves(name: str, part: Part) -> bool:
    """Whether a tuned entry belongs to the part that moves."""
    if part == "all":
        return True
    if not name.startswith(PLANES):  # weights answer for both; they go with the shape
        return part == "shape"
    return (name == PLANES + "shape") == (part == "shape")
