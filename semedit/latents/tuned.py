"""Latents drawn: a generator with a face's own differences, for the length of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from semedit.errors import LatentError
from semedit.generators import Output
from semedit.generators.contract import Generator
from semedit.latents.latent import NOISE, PLANES, Codes, Latent, _swapping, _under
from semedit.latents.tone import Tone


class _Call(nn.Module):
    """Makes any method of a generator a `forward`, which is what functional_call runs."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.generator, method)(*args, **kwargs)


class TunedGenerator:
    """A generator + differences of its weights and planes, and the tone of its pictures; the
    original is left untouched.

    Offers the generator's protocol (mapping, synthesis, planes, render and its attributes).
    Differences that require grad receive it: that is how pivotal tuning optimises them.

    Args: generator; differences: parameter -> difference of the parameter's own shape, and
          "planes.NAME" -> what is added to that entry of the planes, [N, ...] or one for all;
          "noise.LAYER" -> what is added to the generator's own map, unless a call names noise.
          tone: of the faces, or of the one face, that are drawn.
    """

    def __init__(
        self, generator: Generator, differences: Mapping[str, Tensor], tone: Tone | None = None
    ) -> None:
        self._tone = tone
        self._call = _Call(generator)
        self._generator = generator
        apart = (PLANES, NOISE)
        self._differences = {k: v for k, v in differences.items() if not k.startswith(apart)}
        self._added = _under(differences, PLANES)
        self._noise = _under(differences, NOISE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def _run(self, method: str, *args: Any, **kwargs: Any) -> Any:
        weights = dict(self._generator.named_parameters())
        tuned = {
            "generator." + k: weights[k].detach() + v.to(weights[k])
            for k, v in self._differences.items()
        }
        with _swapping:
            return functional_call(self._call, tuned, (method, *args), kwargs)

    def mapping(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return self._run("mapping", *args, **kwargs)

    def synthesis(self, codes: Codes, c: Tensor, **kwargs: Any) -> Output:
        if self._noise and "noise" not in kwargs:
            own = self._generator.noises()
            kwargs["noise"] = {k: own[k] + v.to(own[k]) for k, v in self._noise.items()}
        if self._added:
            return self.render(self.planes(codes), c, **kwargs)
        return self._toned(self._run("synthesis", codes, c, **kwargs))

    def _toned(self, output: Output) -> Output:
        return output if self._tone is None else replace(output, image=self._tone(output.image))

    def planes(self, codes: Codes) -> Any:
        planes = self._run("planes", codes)
        return self._generator.settled(self.add(planes)) if self._added else planes

    def add(self, planes: Any) -> Any:
        """Planes of the generator itself -> this face's; what follows from them stays (`planes`
        makes it again), so that a descent does not pay for it at every step."""
        if not self._added:
            return planes
        return {**planes, **{k: planes[k] + v.to(planes[k]) for k, v in self._added.items()}}

    def render(self, *args: Any, **kwargs: Any) -> Output:
        return self._toned(self._run("render", *args, **kwargs))

    def field(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._run("field", *args, **kwargs)

    def toned(self, colours: Tensor) -> Tensor:
        """Colours [M,3] in [-1,1] of the one face, in its tone."""
        return colours if self._tone is None else self._tone(colours.T[None])[0].T

    def sigma(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._run("sigma", *args, **kwargs)

    def labels(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._run("labels", *args, **kwargs)


def tuned_generator(generator: Generator, latent: Latent) -> Any:
    """The generator for a latent: itself, or wrapped with the faces' differences.

    Raises: LatentError: several faces with weights of their own; take one of them.
    """
    if latent.tuned is None:
        return generator if latent.tone is None else TunedGenerator(generator, {}, latent.tone)
    if all(k.startswith((PLANES, NOISE)) for k in latent.tuned):
        return TunedGenerator(generator, latent.tuned, latent.tone)
    if len(latent) != 1:
        raise LatentError("tuned weights belong to one face each: take one face of the latent")
    own = {k: v if k.startswith((PLANES, NOISE)) else v[0] for k, v in latent.tuned.items()}
    return TunedGenerator(generator, own, latent.tone)


def synthesize(generator: Generator, latent: Latent, c: Tensor | None = None) -> Output:
    """The generator's Output of every face, each with its own tuned weights; no composite.

    Args: c: cameras [N,25] instead of the latent's own.
    """
    c = latent.c if c is None else c
    for name, value in {**latent.codes, "c": c}.items():
        if value.dtype != torch.float32:
            kind = str(value.dtype).removeprefix("torch.")
            raise LatentError(f"{name} of the latent is {kind}, not float32")
    if all(k.startswith((PLANES, NOISE)) for k in latent.tuned or ()):
        return tuned_generator(generator, latent).synthesis(latent.codes, c)
    outputs = [
        tuned_generator(generator, latent[i]).synthesis(latent[i].codes, c[i : i + 1])
        for i in range(len(latent))
    ]
    return join_outputs(outputs)


def picture(generator: Generator, latent: Latent) -> Output:
    """What the latent looks like in its own camera, kept pixels included."""
    output = synthesize(generator, latent)
    if latent.composite is None:
        return output
    return replace(output, image=latent.composite.over(output.image))


def join_outputs(outputs: Sequence[Output]) -> Output:
    """Outputs along the batch axis; a part that one lacks is left out. `low` is dropped."""

    def part(name: str) -> Tensor | None:
        values = [getattr(x, name) for x in outputs]
        return None if any(v is None for v in values) else torch.cat(values)

    image = part("image")
    assert image is not None  # every generator draws one
    return Output(image=image, seg=part("seg"), depth=part("depth"), low=None)
