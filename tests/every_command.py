"""Which commands work on which generators: each tried on a small random one of every kind."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import (
    SMALL_CNERF,
    SMALL_ENCODER,
    make_cnerf,
    small_eg3d,
    small_gram,
    small_ide3d,
    small_l2sae,
    small_manifolds,
    small_stylegan2,
    small_stylegan3,
    small_triplane,
)
from typer.testing import CliRunner

from semedit import cameras, weights
from semedit.cli.app import app
from semedit.faces import Face
from semedit.generators import GENERATORS
from semedit.generators.parts.encoder import Encoder
from semedit.media.labels import REGIONS
from semedit.media.masks import write_labels

KINDS: dict[str, Callable[[], Any]] = {
    "triplane": small_triplane,
    "stylegan2": small_stylegan2,
    "stylegan3": small_stylegan3,
    "l2sae": small_l2sae,
    "cnerf": lambda: make_cnerf(SMALL_CNERF),
    "eg3d": small_eg3d,
    "ide3d": small_ide3d,
    "gram": small_gram,
    "manifolds": small_manifolds,
}
assert KINDS.keys() == GENERATORS.keys()

FEW = "-o steps=2"
ALONG = "--direction pc00 -o directions=DIRECTIONS"
# column -> the command; MAP, REGIONS and DIRECTIONS stand for what there is.
COMMANDS = {
    "invert": f"invert --method optimize {FEW}",
    "edit --direction": f"edit a {ALONG} --from latents",
    "edit --strength": f"edit a {ALONG} --strength=-1:1:3 --from latents",
    "edit --mask": f"edit a --mask MAP --from latents {FEW}",
    "edit --transfer-from": f"edit a --transfer-from b --region hair --from latents {FEW}",
    "edit --texture-seed": "edit a --texture-seed 7 --region REGIONS --from latents",
    "edit --region": "edit a --region hair --style-noise 1",
    "edit --shift": "edit a --shift 0.1,0 --from latents",
    "attr": f"attr a --smiling --from latents {FEW}",
    "interpolate": "interpolate a b --frames 2",
    "turntable": "turntable a --frames 2",
    "turntable --seg": "turntable a --frames 2 --seg",
    "mesh": "mesh a --resolution 16 --level 0.01",
}


def write_face(work: Path, name: str, shade: int) -> None:
    """An aligned face of a workspace: hair above skin, 64 pixels."""
    labels = np.full((64, 64), REGIONS["skin"][0], np.uint8)
    labels[:20] = REGIONS["hair"][0]
    labels[44:50, 22:42] = REGIONS["lips"][0]
    pixels = np.full((64, 64, 3), shade, np.uint8)
    pixels[:20] //= 2
    record = Face(
        name=name,
        source=f"{name}.png",
        source_sha256="0" * 64,
        index=0,
        size=64,
        quad=np.array([[0, 0], [0, 64], [64, 64], [64, 0]], float),
        landmarks=np.full((68, 2), 32, np.float32),
        c=cameras.orbit(0.1, 0.0)[0].numpy(),
    )
    for part in ("faces", "masks"):
        (work / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(work / "faces" / f"{name}.png")
    (work / "faces" / f"{name}.json").write_text(record.to_json(), "utf-8")
    write_labels(work / "masks" / f"{name}.png", torch.from_numpy(labels))


def write_generator(folder: Path, kind: str) -> Path:
    """Weights of a small generator, named like its kind; an encoder beside that of tri-planes."""
    about = {"licence": "MIT", "command": "none", "seed": "0", "data": "none", "figures": "{}"}
    generator = KINDS[kind]()
    path = folder / f"{kind}.safetensors"
    facts = about | {"kind": kind, "config": json.dumps(asdict(generator.config))}
    weights.save(path, generator.state_dict(), facts)
    if kind == "triplane":
        encoder = about | {"kind": "encoder", "config": json.dumps(asdict(SMALL_ENCODER))}
        torch.manual_seed(0)
        own = folder / f"{kind}-encoder.safetensors"
        weights.save(own, Encoder(SMALL_ENCODER).state_dict(), encoder)
    return path


@contextmanager
def own_weights(folder: Path) -> Iterator[None]:
    """The user's weights are in a folder of its own, and there are none."""
    before = os.environ.get("SEMEDIT_WEIGHTS")
    os.environ["SEMEDIT_WEIGHTS"] = str(folder / "none")
    try:
        yield
    finally:
        os.environ.pop("SEMEDIT_WEIGHTS")
        if before is not None:
            os.environ["SEMEDIT_WEIGHTS"] = before


def said(words: list[str]) -> str:
    """ "works", or why a command does not, in its own words but the hints."""
    result = CliRunner().invoke(app, words)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 0:
        return "works"
    lines = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    told = [line["error"]["message"] for line in lines if isinstance(line.get("error"), dict)]
    told += re.findall(r"^error: (.*?)(?: \(.*\))?$", result.output, re.M)
    assert told, result.output
    return str(told[0])


def row(folder: Path, kind: str) -> list[str]:
    """What each command says of one kind."""
    work, file = folder / f"work-{kind}", write_generator(folder, kind)
    for name, shade in (("a", 200), ("b", 120)):
        write_face(work, name, shade)
    drawn = torch.full((64, 64), REGIONS["skin"][0])
    drawn[:44] = REGIONS["hair"][0]
    write_labels(folder / "map.png", drawn)
    directions = folder / f"directions-{kind}.safetensors"
    fitted = ["directions", "pca", "--components", "2", "-n", "32", "-w", str(file)]
    assert said([*fitted, "--out", str(directions)]) == "works"
    places = {"MAP": folder / "map.png", "DIRECTIONS": directions, "REGIONS": ",".join(REGIONS)}
    found = []
    for name, text in COMMANDS.items():
        if name == "edit --transfer-from" and "regions" in GENERATORS[kind].traits:
            text = text.replace(FEW, "")  # codes are exchanged, nothing descends
        for word, value in places.items():
            text = text.replace(word, str(value))
        found.append(said([*text.split(), "-w", str(file), "--work", str(work), "--json"]))
    return found


def table() -> str:
    """Rows: generators. Columns: commands."""
    with TemporaryDirectory() as name, own_weights(Path(name)):
        rows = [[f"`{kind}`", *row(Path(name), kind)] for kind in KINDS]
    return "\n".join(map(line, (HEAD, ["-"] * len(HEAD), *rows)))


HEAD = ["", *(f"`{name}`" for name in COMMANDS)]


def line(cells: list[str]) -> str:
    """A row as the guide has it."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table())
