"""What the page of `semedit paint` asks for: a face's edits in memory, and saving them.

Edits are a chain of steps, as on the command line (tasks.steps). The page sends the whole chain
each time; what a chain comes to is remembered, so that only its last step is computed.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semedit import cameras, latents, weights
from semedit.batch import Outcome
from semedit.batch.places import check_folder
from semedit.batch.workspace import Workspace, step_number
from semedit.directions.directions import directions_for
from semedit.editors import EDITORS
from semedit.errors import InputError, MaskError, OptionError, SemeditError, WeightsError
from semedit.faces.attributes import known_attributes
from semedit.inverters import INVERTERS, usual
from semedit.latents import Latent
from semedit.media.decoding import read_labels, read_photo
from semedit.media.labels import REGIONS
from semedit.media.masks import write_labels
from semedit.media.pixels import to_uint8
from semedit.options import build_method
from semedit.tasks import load_generator, read_face, run_task, steps
from semedit.tasks.donors import read_donor
from semedit.tasks.edit import Edit
from semedit.tasks.invert import Invert
from semedit.tasks.original import Original, original_inputs, read_original, with_detail
from semedit.tasks.steps import Step

STATES = 12  # chains whose outcome is remembered
MAPS = 64  # drawn maps that are remembered
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"  # how such files begin; width and height follow
LONGEST = 40  # steps of a chain
DRAWN = "drawn"  # folder of the workspace for maps that were drawn on the page
WIDEST_DEG = (45.0, 25.0)  # yaw and pitch that the page offers at most
ONE_PASS = ("steps=0", "search=false")  # of `mask`, where nothing is quicker

Progress = Callable[[int, int], None]
Chain = Sequence[Mapping[str, Any]]  # steps as the page sends them, see Studio.step


@dataclass(frozen=True, eq=False)
class State:
    """What a chain of edits comes to.

    Attributes:
        pixels: uint8 in the face's own view, as `semedit edit` writes them: [S,S,3] at the size of
            the photograph, [R,R,3] where there is none.
        now: int64 [S,S], its label map at the size of the photograph's own.
        told: figures of the last step; warnings: remarks on it.
    """

    latent: Latent
    pixels: np.ndarray
    now: np.ndarray
    told: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass
class _Last:
    """Observer of a run over one face: what became of it."""

    outcome: Outcome | None = None

    def start(self, total: int) -> None: ...

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Studio:
    """Faces of a workspace, edited in memory by a generator that stays loaded.

    One thread at a time may call `state`, `view`, `save` and `invert`.
    """

    def __init__(
        self,
        space: Workspace,
        names: Sequence[str] = (),
        generator_name: str = "heads-128",
        device: str = "cpu",
        mark: bool = True,
    ) -> None:
        """Raises: NothingMatchedError: there is no face, or a name matches none."""
        self.space, self.generator_name = space, generator_name
        self.device, self.mark = device, mark
        self.names = space.faces(names)
        self._maps: OrderedDict[str, np.ndarray] = OrderedDict()
        self._states: OrderedDict[str, State] = OrderedDict()
        self._kept: tuple[Any, Original | None] | None = None

    @cached_property
    def generator(self) -> Any:
        return load_generator(self.generator_name, self.device)

    # What there is

    def offers(self) -> dict[str, Any]:
        """What the page can offer with this generator."""
        traits = self.generator.traits
        yaw, pitch = getattr(self.generator, "view_limit_deg", WIDEST_DEG)
        turning = [min(yaw, WIDEST_DEG[0]), min(pitch, WIDEST_DEG[1])]
        return {
            "generator": self.generator_name,
            "view_deg": turning if "camera" in traits else None,
            "directions": self._directions(),
            "attributes": list(known_attributes()),
            "regions": [name for name in REGIONS if name not in ("face", "background")],
            "draws": True,
            "live": self._editor is not None,
            "finishes": True,
            "textures": EDITORS["texture"].requires <= traits,
            "transfers": True,
        }

    def _directions(self) -> list[str]:
        try:
            return sorted(directions_for(self.generator).units)
        except WeightsError:
            return []

    @cached_property
    def _editor(self) -> tuple[str, tuple[str, ...]] | None:
        """The editor that follows a drawing in one pass, with its settings; None: there is none."""
        kind: Any = EDITORS["canonical"]
        (encoder,) = kind().weights_of(self.generator_name)
        if kind.requires <= self.generator.traits and weights.on_disk(encoder):
            return "canonical", ()
        if {"seg", "encode"} <= self.generator.traits:
            return "mask", ONE_PASS
        return None

    def face(self, name: str) -> dict[str, Any]:
        """What the page is told of a face: its size, and where edits may start."""
        own = self._own(name)
        record = read_face(self.space.path("faces", name, ".json"))
        inverted = self.space.path("latents", name, ".safetensors").is_file()
        newest = self.space.source(name) if inverted else None
        base = self.space.path("latents", name, ".safetensors")
        others = [f"latents@{label}" for label in self.space.inversions(name) if label]
        short = [step.removeprefix(f"{name}/") for step in self.space.steps(name)]
        return {
            "name": name,
            "size": len(own),
            "inverted": inverted,
            "starts": ["latents", *others, *short] if inverted else [],
            "newest": "latents" if newest in (None, base) else newest.stem,
            "attributes": record.attributes or {},
        }

    def _own(self, name: str) -> np.ndarray:
        path = self.space.path("masks", name, ".png")
        if not path.is_file():
            raise InputError(f"{name} has no label map", "run `semedit parse` first")
        return read_labels(path)

    def photograph(self, name: str) -> np.ndarray:
        """The aligned face, uint8 [S,S,3]."""
        return read_photo(self.space.path("faces", name, ".png")).pixels

    # Drawn maps

    def keep_map(self, name: str, data: bytes) -> str:
        """Remember a drawn label map; returns what it is called in a chain.

        Args:   data: a PNG file of the size of the face's own map, in the colours of the labels.
        Raises: InputError, MaskError: it is not one; that of another size is not decoded at all.
        """
        own = self._own(name).shape
        _check_size(data, own)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "map.png")
            path.write_bytes(data)
            try:
                drawn = read_labels(path)
            except SemeditError as error:
                told = error.message.removeprefix(f"{path}: ")
                raise type(error)(f"the map that was sent: {told}", error.hint) from error
        digest = hashlib.sha256(drawn.astype(np.uint8).tobytes()).hexdigest()[:16]
        self._maps[digest] = drawn
        self._maps.move_to_end(digest)
        while len(self._maps) > MAPS:
            self._maps.popitem(last=False)
        return digest

    def _map(self, digest: Any) -> np.ndarray:
        if digest not in self._maps:
            raise InputError("the drawing is no longer in memory", "draw one more stroke")
        return self._maps[digest]

    # Edits

    def step(self, given: Mapping[str, Any], mask: Path | None = None) -> Step:
        """A step that the page sent:

            {"kind": "mask", "map": ..., "finish": whether the optimising editor shall do it}
            {"kind": "direction", "name": ..., "strength": ...}
            {"kind": "attribute", "name": ..., "wanted": true or false}
            {"kind": "texture", "region": ..., "seed": ... or "donor": a face}
            {"kind": "transfer", "regions": ..., "donor": a face}

        Args:   mask: where the drawn map is, or will be.
        Raises: OptionError: it is none of these.
        """
        try:
            match given["kind"]:
                case "mask":
                    editor = ("mask", ()) if given.get("finish") else self._editor
                    if editor is None:
                        raise OptionError("nothing follows a drawing at once", "finish it")
                    return steps.by_mask(mask or Path("map.png"), *editor)
                case "direction":
                    strength = float(given["strength"])
                    return steps.along(str(given["name"]), float(f"{strength:g}"))
                case "attribute":
                    return steps.attributes({str(given["name"]): bool(given["wanted"])})
                case "texture":
                    donor = self._donor(given.get("donor"))
                    seed = int(given["seed"]) if donor is None else None
                    return steps.texture(str(given["region"]), donor, seed)
                case "transfer":
                    donor = self._donor(given["donor"])
                    return steps.transfer(str(donor), str(given["regions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise OptionError(f"a step that cannot be read: {error}") from error
        raise OptionError(f"no such kind of step: {given['kind']!r}")

    def _donor(self, given: Any) -> str | None:
        """A face of the workspace: the page may not name files."""
        if given is not None and given not in self.names:
            raise OptionError(f"{given} is no face of {self.space.root}")
        return given

    def state(self, name: str, start: str, chain: Chain, progress: Progress) -> State:
        """What a chain of edits comes to, from the inversion ("latents") or a step."""
        if len(chain) > LONGEST:
            raise OptionError(f"more than {LONGEST} steps", "save, and start from the last one")
        if not chain:
            return self._start(name, start)
        key = self._key(name, start, chain)
        if key not in self._states:
            before = self.state(name, start, chain[:-1], _silent)
            self._remember(key, self._after(name, start, before, chain[-1], progress))
        self._states.move_to_end(key)
        return self._states[key]

    def _key(self, name: str, start: str, chain: Chain) -> str:
        """Of a state: its face, the file it starts from as it is now, its steps."""
        path = self.space.source(name, start)
        return json.dumps([name, str(path), path.stat().st_mtime_ns, list(chain)], sort_keys=True)

    def _remember(self, key: str, state: State) -> None:
        self._states[key] = state
        while len(self._states) > STATES:
            self._states.popitem(last=False)

    def _start(self, name: str, start: str) -> State:
        key = self._key(name, start, ())
        if key not in self._states:
            path = self.space.source(name, start)
            latent = latents.load(path, self.generator).to(self.device)
            map_ = path.with_suffix(".labels.png")
            now = read_labels(map_) if map_.is_file() else self._own(name)
            with torch.no_grad():
                output = latents.picture(self.generator, latent)
            original = self._original(name, start)
            image = output.image
            if original is not None:
                image, _ = with_detail(self.generator, original, output, self.device)
            pixels = to_uint8(image)[0]
            self._remember(key, State(latent, pixels, now))
        self._states.move_to_end(key)
        return self._states[key]

    def _after(
        self, name: str, start: str, before: State, given: Mapping[str, Any], progress: Progress
    ) -> State:
        """A state with one step more."""
        task = self._task(self.step(given), name, None, progress)
        drawn = self._map(given.get("map")) if task.mask is not None else None
        donor = None
        if task.donor is not None:
            donor = read_donor(self.space.source(task.donor), self.generator)
        source = task.source(before.latent, self._own(name), before.now, drawn, donor=donor)
        ((latent, told),) = task.edited([source])
        pixels, now = task.shown(latent, source.size, self._original(name, start))
        return State(latent, pixels, now, told, source.warnings)

    def _original(self, name: str, start: str) -> Original | None:
        """What the face's edits take their detail from; of the last face it is kept."""
        inputs = original_inputs(self.space, name, start)
        key = [(str(path), path.stat().st_mtime_ns) for path in inputs.values()]
        if self._kept is None or self._kept[0] != key:
            self._kept = key, read_original(inputs, self.generator)[0]
        return self._kept[1]

    def _task(self, step: Step, name: str, start: str | None, progress: Progress) -> Edit:
        return step.task(
            generator_name=self.generator_name,
            start=start,
            names=(name,),
            device=self.device,
            mark=self.mark,
            progress=progress,
        )

    @torch.no_grad()
    def view(self, state: State, yaw_deg: float, pitch_deg: float) -> np.ndarray:
        """The state turned by these angles, uint8 [R,R,3]; (0, 0) is the face's own view."""
        if not (yaw_deg or pitch_deg) or "camera" not in self.generator.traits:
            return state.pixels
        yaw, pitch = (
            math.radians(max(-most, min(most, angle)))
            for angle, most in zip((yaw_deg, pitch_deg), WIDEST_DEG, strict=True)
        )
        c = cameras.turn(state.latent.c, yaw, pitch)
        return to_uint8(latents.synthesize(self.generator, state.latent, c).image)[0]

    # Saving

    def save(self, name: str, start: str, chain: Chain, progress: Progress) -> list[Outcome]:
        """Do a chain of edits as the command line does: drawn maps, steps, receipts.

        Raises: SemeditError: a step failed, a folder leads elsewhere, or another run holds the
            workspace.
        """
        found, at = [], start
        with self.space.locked():
            for given, path in zip(chain, self.places(name, chain), strict=True):
                if path is not None and not path.is_file():
                    check_folder(self.space.root, path.parent)
                    write_labels(path, self._map(given["map"]))
                task = self._task(self.step(given, path), name, at, progress)
                found.append(self._performed(task))
                at = found[-1].name.removeprefix(f"{name}/")
        return found

    def _performed(self, task: Edit | Invert) -> Outcome:
        last = _Last()
        run_task(task, self.space, last, retry_failed=True)
        outcome = last.outcome
        assert outcome is not None  # there is one face
        if outcome.error is not None:
            raise InputError(str(outcome.error["message"]), outcome.error["hint"])
        return outcome

    def places(self, name: str, chain: Chain) -> list[Path | None]:
        """Where the drawn map of each step is saved: under the first number of the face that is
        free, or has this very map already."""
        places: list[Path | None] = []
        number = 1
        for given in chain:
            if given.get("kind") != "mask":
                places.append(None)
                continue
            drawn = self._map(given.get("map"))
            while True:
                path = self.space.path(DRAWN, f"{name}/{number:02d}", ".png")
                number += 1
                if not path.is_file() or np.array_equal(read_labels(path), drawn):
                    break
            places.append(path)
        return places

    def commands(
        self, name: str, start: str, chain: Chain, saved: Sequence[Outcome] = ()
    ) -> list[str]:
        """The commands that do what `save` does, or did: then its outcomes say from which steps."""
        lines, at = [], start
        last = step_number(all_[-1]) if (all_ := self.space.steps(name)) else 0
        for i, (given, path) in enumerate(zip(chain, self.places(name, chain), strict=True)):
            step = self.step(given, path)
            words = ["semedit", step.command, *step.words, "--from", at]
            words += ["--work", str(self.space.root)]
            if self.generator_name != "heads-128":
                words += ["-w", self.generator_name]
            words += [] if self.mark else ["--no-mark"]
            words += ["--", name] if name.startswith("-") else [name]
            lines.append(shlex.join(words))
            at = saved[i].name.removeprefix(f"{name}/") if saved else str(last + i + 1)
        return lines

    def invert(self, name: str, progress: Progress) -> Outcome:
        """Invert a face as `semedit invert` does by default."""
        kind = usual(self.generator.name, self.generator.traits)
        task = Invert(
            kind,
            build_method(INVERTERS[kind]),
            generator_name=self.generator_name,
            names=(name,),
            device=self.device,
            mark=self.mark,
            progress=progress,
        )
        with self.space.locked():
            return self._performed(task)


def _check_size(data: bytes, shape: tuple[int, ...]) -> None:
    """Raise unless the head of a PNG file tells this shape, [H,W]."""
    if not data.startswith(PNG) or len(data) < len(PNG) + 8:
        raise InputError("the map that was sent is no PNG file", "reload the page")
    width, height = struct.unpack_from(">II", data, len(PNG))
    if (height, width) != shape:
        raise MaskError(
            f"the map that was sent is {width} x {height} pixels, the face {shape[1]} x {shape[0]}",
            "reload the page",
        )


def _silent(done: int, total: int) -> None:
    """Progress that nobody watches."""
