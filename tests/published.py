"""Our tensors under the names and shapes of published files: what the readers are tested on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pickled import FILTER
from torch import Tensor

from semedit.checkpoints import cnerf_keys, stylegan2_keys
from semedit.generators.stylegan2.stylegan2 import StyleGAN2


def to_rosinality(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """semedit's tensors under rosinality's names, without filters and w_avg."""
    theirs = stylegan2_keys.to_nvidia(tensors)
    names = {stylegan2_keys.rosinality_name(key)[0]: key for key in _all_rosinality(theirs)}
    found = {}
    for key, value in theirs.items():
        if key not in names:
            continue
        other = names[key]
        shape = stylegan2_keys.rosinality_name(other)[1]
        if other.startswith("noises."):
            value = value[None, None]
        elif shape is None:
            value = value[None]
        elif shape == (-1,):
            value = value.view(1, -1, 1, 1)
        found[other] = value
    return found


def _all_rosinality(theirs: Iterable[str]) -> Iterable[str]:
    """Every key that rosinality's network of these sizes has."""
    blocks = len({key.split(".")[1] for key in theirs if key.startswith("synthesis.")})
    depth = len({key.split(".")[1] for key in theirs if key.startswith("mapping.fc")})
    for i in range(depth):
        yield from (f"style.{i + 1}.weight", f"style.{i + 1}.bias")
    yield "input.input"
    yield from (f"noises.noise_{i}" for i in range(2 * blocks - 1))
    convs = ["conv1", *(f"convs.{i}" for i in range(2 * blocks - 2))]
    drawn = ["to_rgb1", *(f"to_rgbs.{i}" for i in range(blocks - 1))]
    shared = ("conv.weight", "conv.modulation.weight", "conv.modulation.bias")
    for layer in convs:
        yield from (f"{layer}.{part}" for part in (*shared, "activate.bias", "noise.weight"))
    for layer in drawn:
        yield from (f"{layer}.{part}" for part in (*shared, "bias"))


def to_published_cnerf(
    own: Mapping[str, Tensor], like: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """semedit's tensors under the published names; `like`: published names and shapes."""
    found: dict[str, Tensor] = {}
    for name, theirs in cnerf_keys.stacks(like):
        if name in own:
            values = own[name].reshape(len(theirs), *like[theirs[0]])
            found |= dict(zip(theirs, values, strict=True))
    for name, key in cnerf_keys.singles(like):
        found[key] = own[name].reshape(like[key])
    return found


def rosinality_tensors(generator: StyleGAN2) -> dict[str, Tensor]:
    found = dict(to_rosinality(generator.state_dict()))
    found["convs.0.conv.blur.kernel"] = (FILTER * 4).clone()
    found["to_rgbs.0.upsample.kernel"] = (FILTER * 4).clone()
    return found
