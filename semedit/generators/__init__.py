"""Generators: the protocol they share, what they return, and which there are.

    codes = generator.mapping(z, c)          z [N,z_dim] standard normal -> dict of named tensors
    output = generator.synthesis(codes, c)   codes and camera -> Output

A generator that knows cameras (trait "camera") does its work in two halves, so that many views
cost little more than one: `planes(codes)` once per face, `render(planes, c)` per view, and
synthesis(codes, c) == render(planes(codes), c). No call changes what a later one returns.

Traits: "ws" (codes["ws"] is W+), "camera", "seg" (Output.seg), "noise" (`noises` names maps that
synthesis takes), "coarse" (synthesis can end at a lower resolution), "regions", "encode",
"slices" (of a code's channels, each of which answers for a region: `region_logits`), "texture"
(the first `num_shape` styles shape a face; `optional_codes` give regions the texture of others),
"field" (density and colour at points of the box: `field`, `sigma`), "borrow" (codes take a donor's
regions: `borrow`), "shift" (the code "place" shifts and turns a face within its picture).
To add a generator: write its file, add its line to GENERATORS.
"""

from semedit.generators.contract import Generator, Output
from semedit.generators.labelled import Labelled, judge, with_labels
from semedit.generators.registry import (
    CONFIGS,
    GENERATORS,
    build_generator,
    files_of,
    load_generator,
    traits_of,
)

__all__ = [
    "CONFIGS",
    "GENERATORS",
    "Generator",
    "Labelled",
    "Output",
    "build_generator",
    "files_of",
    "judge",
    "load_generator",
    "traits_of",
    "with_labels",
]
