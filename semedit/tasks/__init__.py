"""The commands of the chain as tasks for the folder loop: align, invert, edit, turntable.

A task is a frozen dataclass of settings. It says what its items are, loads one, works on several;
`perform` runs it over a workspace. The command line and the demo do nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from semedit import cameras, generators, latents, weights
from semedit.batch import Item, Observer, Result, Run, Tally, for_each
from semedit.batch.places import labelled
from semedit.batch.plan import Plan, plan
from semedit.batch.ray import Cluster, for_each_on_ray
from semedit.batch.workspace import Workspace, parameters_in
from semedit.errors import InputError, LatentError, SemeditError
from semedit.faces import Face
from semedit.generators import files_of
from semedit.latents import Latent
from semedit.media import reading
from semedit.media.decoding import read_labels, read_photo
from semedit.media.masks import fit_labels
from semedit.media.pixels import resize, to_tensor

if TYPE_CHECKING:
    from torch import Tensor


class Task(Protocol):
    """What `perform` needs of a task.

    Attributes:
        command: the name its receipts go under.
        batch: items worked on together, at most.
        item_bytes: what the outputs of one item take on the disk, roughly.
    """

    @property
    def command(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def item_bytes(self) -> int: ...

    def parameters(self) -> dict[str, Any]:
        """All that decides about the outputs besides inputs and weights; JSON types."""

    def weights(self) -> dict[str, str]:
        """name -> sha256 of the weight files that decide about the outputs."""

    def items(self, run: Run) -> list[Item]:
        """The units of work."""

    def load(self, item: Item) -> Any:
        """Read one item's inputs; several threads do at once, while others compute."""

    def work(self, items: list[Item], loaded: list[Any]) -> Sequence[Result]:
        """Compute some loaded items; their results write the outputs later."""


def run_task(
    task: Task,
    workspace: Workspace,
    observer: Observer,
    cluster: Cluster | None = None,
    **settings: Any,
) -> Tally:
    """Run a task over a workspace that is locked by the caller.

    Args:
        cluster: runs it on the devices of a Ray cluster.
        settings: fields of Run: overwrite, retry_failed, max_failures, shard.
    """
    run = _run_of(task, workspace, settings)
    if cluster is not None:
        return for_each_on_ray(run, task, observer, cluster)
    return for_each(run, task.items(run), task.load, task.work, observer, task.batch)


def plan_of(task: Task, workspace: Workspace, **settings: Any) -> Plan:
    """What `perform` would do."""
    run = _run_of(task, workspace, settings)
    return plan(run, task.items(run), task.item_bytes)


def _run_of(task: Task, workspace: Workspace, settings: Mapping[str, Any]) -> Run:
    return Run(workspace, task.command, task.parameters(), task.weights(), **settings)


def check_finite(latent: Latent, what: str) -> str | None:
    """A warning if the descent that made the latent of one face diverged.

    Raises: LatentError: it holds what is not finite; nothing of it must be written.
    """
    for name, value in (*latent.codes.items(), *(latent.tuned or {}).items()):
        if not torch.isfinite(value).all():
            raise LatentError(f"{what} diverged: {name} is not finite")
    if any(latent.meta.get("diverged", ())):
        return f"{what} diverged; it is kept as it was when last finite"
    return None


def latent_bytes(generator: str) -> int:
    """What a latent and its picture take on the disk, roughly: tuning is the most of it, and
    changes a share of the generator's parameters."""
    return 200_000 + files_of(generator)[0].stat().st_size // 4


_loading = threading.Lock()


def load_generator(name: str, device: str) -> Any:
    """`generators.load_generator`, which keeps the last two: the steps of a recipe share them."""
    read = tuple((path, weights.file_sha256(path)) for path in files_of(name))
    with _loading:
        return _generator(name, device, read)


@lru_cache(maxsize=2)
def _generator(name: str, device: str, _files: tuple[tuple[Path, str], ...]) -> Any:
    return generators.load_generator(name, device)


def used(*names: str) -> dict[str, str]:
    """name -> sha256 of those of the weight files that are on the disk."""
    return {n: weights.file_sha256(weights.resolve(n)) for n in names if weights.on_disk(n)}


def used_by(generator: str) -> dict[str, str]:
    """name -> sha256 of the weight files of a generator.

    Raises:
        WeightsError: they are not on the disk.
    """
    return {path.stem: weights.file_sha256(path) for path in files_of(generator)}


class OnGenerator:
    """A task that works with a generator, which is loaded when it is first needed."""

    generator_name: str
    device: str

    @cached_property
    def generator(self) -> Any:
        return load_generator(self.generator_name, self.device)


def planned_each(names: Iterable[str], plan: Callable[[str], Item]) -> list[Item]:
    """The items of some names; see `planned`."""
    return [planned(name, partial(plan, name)) for name in names]


def planned(name: str, plan: Callable[[], Item]) -> Item:
    """An item, or one that carries the error its planning ended with."""
    try:
        return plan()
    except SemeditError as error:
        return Item(name, {}, error=error)


def named(label: str) -> dict[str, str]:
    """A label that the user gave, as parameters have it: a result of that name is another one."""
    return {"label": label} if label else {}


def free_name(space: Workspace, command: str, face: str, label: str) -> str:
    """The name of what a command makes of a face under a label.

    Raises: InputError: it is a face's, or under such a label the result of a face of that name.
    """
    name = labelled(face, label)
    receipt = space.receipt(command, name)
    taken = bool(label) and space.path("faces", name, ".json").is_file()
    if taken or (receipt and parameters_in(receipt).get("label", "") != label):
        raise InputError(f"{name} would be the name of two things", "give another --label")
    return name


@dataclass(frozen=True, eq=False)
class Aligned:
    """An aligned face as later commands read it.

    Attributes:
        image: float32 [1,3,S,S] in [-1,1].
        labels: int64 [1,S,S].
    """

    face: Face
    image: Tensor
    labels: Tensor

    def at(self, size: int) -> Aligned:
        """The same at another resolution; labels by nearest neighbour."""
        labels, _ = fit_labels(self.labels[0].numpy(), size, size)
        return Aligned(self.face, resize(self.image, size), torch.from_numpy(labels)[None])


def face_inputs(space: Workspace, name: str) -> dict[str, Path]:
    """The files of an aligned face: role -> path."""
    return {
        "crop": space.path("faces", name, ".png"),
        "face": space.path("faces", name, ".json"),
        "labels": space.path("masks", name, ".png"),
    }


def read_face(path: str | Path) -> Face:
    """The sidecar of a crop.

    Raises: InputError: it cannot be read, is damaged, or its camera is none.
    """
    try:
        face = Face.from_json(reading.read(path).decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if face.c.any() and not cameras.proper(torch.from_numpy(face.c)[None]).all():
        raise InputError(
            f"{path}: its camera label is not a camera", "run `semedit align --overwrite`"
        )
    return face


def read_latent(path: str | Path, generator: Any) -> Latent:
    """The latent of one face.

    Raises: LatentError: as `latents.load`; or it holds several faces.
    """
    latent = latents.load(path, generator)
    if len(latent) != 1:
        raise LatentError(f"{Path(path).name} holds {len(latent)} faces, not one")
    return latent


def load_face(item: Item, camera: bool = True) -> Aligned:
    """Read the files that `face_inputs` names.

    Args:
        camera: whether the face must have one.

    Raises:
        InputError: one is missing or damaged; the face has no camera.
        MaskError: its label map is not one.
    """
    if not item.inputs["labels"].is_file():
        raise InputError(f"{item.name} has no label map", "run `semedit parse` first")
    face = read_face(item.inputs["face"])
    if camera and not face.c.any():
        raise InputError(f"{item.name} has no camera", "run `semedit pose` first")
    image = to_tensor(read_photo(item.inputs["crop"]).pixels)
    labels, _ = fit_labels(read_labels(item.inputs["labels"]), *image.shape[-2:])
    return Aligned(face, image, torch.from_numpy(labels)[None])


def cameras_of(faces: Iterable[Aligned]) -> Tensor:
    """c [N,25] of faces."""
    return torch.stack([torch.from_numpy(one.face.c) for one in faces])
