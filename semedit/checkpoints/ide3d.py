"""IDE-3D's official generator, `G_ema` of its pickles: what is certain of it, and what is not.

Its code is public only as source inside the pickle, which semedit never runs, and the network
released differs from the paper's: its blocks draw a label map beside the planes, which the next
block is conditioned on, and the texture decoder gives the density. So the mapping network, whose
form is StyleGAN2's, is loaded; all other parts are recognised by their names and left.
"""

from __future__ import annotations

import re
from collections import Counter

from semedit.checkpoints.formats import Format, Part
from semedit.checkpoints.pickles import Tensors
from semedit.checkpoints.reader import Checkpoint
from semedit.checkpoints.stylegan2_keys import FILTERS
from semedit.errors import WeightsError

KIND = "mapping"
ENTRIES = ("G_ema",)
MAPPING = "mapping."
# Names of the parts, by what their tensors' names begin with.
PARTS = (
    (re.compile(r"synthesis\.vb(\d+)\."), "tri-plane blocks"),
    (re.compile(r"synthesis\.b(\d+)\."), "up-sampling blocks"),
    (re.compile(r"synthesis\.(\w+)\."), "other parts of the synthesis"),
    (re.compile(r"(\w+)\."), "other parts"),
)
REASON = (
    "how they work together is told only by source code inside the file, which is never run, and "
    "differs from the paper: so this is no generator to semedit"
)
CAMERA = (
    "its mapping network sees cameras whose y and z axes point the other way: "
    "c[:, [1, 2, 5, 6, 9, 10]] times -1"
)


def matches(checkpoint: Checkpoint) -> bool:
    """A mapping network, and blocks that draw planes under IDE-3D's names."""
    keys = checkpoint.network(*ENTRIES)[2].keys()
    return f"{MAPPING}fc0.weight" in keys and any(PARTS[0][0].match(key) for key in keys)


def parts(checkpoint: Checkpoint) -> list[Part]:
    """The mapping network."""
    name, _, tensors = checkpoint.network(*ENTRIES)
    found = {
        key.removeprefix(MAPPING): value
        for key, value in tensors.items()
        if key.startswith(MAPPING) and not FILTERS.search(key)
    }
    left = tuple(key for key in tensors if not key.startswith(MAPPING))
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    label = shapes.get("embed.weight")
    try:
        config = {
            "z_dim": shapes["fc0.weight"][1] - (label[0] if label else 0),
            "w_dim": shapes["w_avg"][0],
            "c_dim": label[1] if label else 0,
            "mapping_layers": sum(bool(re.fullmatch(r"fc\d+\.weight", key)) for key in shapes),
        }
    except KeyError as error:
        raise WeightsError(f"the mapping network in it lacks {error}") from error
    beside = checkpoint.others(name) if name else ()
    return [Part(KIND, config, found, left, beside, notes=notes(tensors, label is not None))]


def notes(tensors: Tensors, labelled: bool) -> tuple[str, ...]:
    """A line for each part, and why it is or is not loaded."""
    said = ["loaded: the mapping network, whose form is StyleGAN2's"]
    if labelled:
        said.append(CAMERA)
    groups: dict[str, Counter[str]] = {}
    for key in tensors:
        if key.startswith(MAPPING):
            continue
        for pattern, part in PARTS:
            if match := pattern.match(key):
                groups.setdefault(part, Counter())[match[1]] += 1
                break
    for part, members in groups.items():
        listed = ", ".join(f"{member} ({count} tensors)" for member, count in members.items())
        said.append(f"recognised and not loaded: {part} {listed}")
    return (*said, REASON)


FORMAT = Format(
    "IDE-3D's generator",
    "G_ema of its pickles; of it the mapping network",
    "not in the file; see IDE-3D's repository, which has no licence",
    matches,
    parts,
)
