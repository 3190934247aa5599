"""A folder of rendered heads in the layout of CelebAMask-HQ, written head by head and resumable.

DIR/images/NNNNNN_V.png     V = view
DIR/labels/NNNNNN_V.png     palette PNG, CelebAMask-HQ ids
DIR/depth/NNNNNN_V.npz      on request
DIR/edited/NNNNNN_E.png     on request: E = true edit of view 0, see changes.KINDS
DIR/edited/NNNNNN_E.labels.png
DIR/arrays.npz              landmarks [n,V,68,2] px, visible [n,V,68], c [n,V,25],
                            attributes [n,A], z [n,P], with edits: kinds [n,E]
DIR/dataset.json            {"labels": [[file, c], ...]} in EG3D's form; files of images/
DIR/list_attr_celeba.txt    attributes as CelebA writes them
DIR/heads.json              size, look, seed, views, version
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semedit.errors import InputError, OptionError, SemeditError
from semedit.heads.changes import changed
from semedit.heads.parameters import DIMENSIONS
from semedit.heads.render import LOOKS, Head, RenderedView
from semedit.media import valid_json
from semedit.media.files import alone_in, atomic_path, write_bytes
from semedit.media.labels import ATTRIBUTES, PALETTE
from semedit.runtime.isolation import Isolated

VERSION = 3  # of the rules: heads of other versions are not mixed in one folder
MIXED = "mixed"  # looks
UNTOLD = {"edits": 0}  # what folders of before do not tell
EVALUATION_SEED = 1_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Job:
    """What a folder holds."""

    n: int
    size: int
    seed: int
    look: str
    views: int
    depth: bool = False
    edits: int = 0
    version: int = VERSION

    @property
    def evaluation(self) -> bool:
        return self.seed + self.n > EVALUATION_SEED


def view_angles(seed: int, views: int, look: str = "plain") -> np.ndarray:
    """Yaw, pitch, roll [views,3] in radians; views after the first lie within 35 degrees of it."""
    rng = np.random.default_rng([seed, 3])
    spread = (18, 7, 3) if look == "plain" else (24, 11, 9)
    limit = np.array((45, 15, 10) if look == "plain" else (65, 28, 25))
    first = rng.normal(0, spread)
    others = first + rng.uniform((-35, -10, -2), (35, 10, 2), (views - 1, 3))
    return np.asarray(np.deg2rad(np.clip(np.vstack([first[None], others]), -limit, limit)))


def hanging(seed: int) -> float:
    """How far the lids of a head of the hard look hang: half of them not at all. See shape.build.

    z says nothing of it, so that narrow eyes and others stay well apart in the plain look.
    """
    rng = np.random.default_rng([seed, 11])
    return float(rng.uniform(0, 1) if rng.random() < 0.5 else 0.0)


def write_dataset(
    out: Path,
    n: int,
    size: int = 256,
    seed: int = 0,
    look: str = "plain",
    views: int = 1,
    workers: int = 1,
    depth: bool = False,
    progress: Callable[[int, int], None] | None = None,
    edits: int = 0,
) -> None:
    """Render heads seed .. seed + n - 1 into a folder; finished heads are kept.

    Args:   look: of LOOKS, or "mixed": of every second head plain, of the others hard.
            workers: processes. progress(done, n) is called after every head.
            edits: true edits of each head, all seen by the camera of its first view.
    Raises: OptionError: unknown look, or seeds on both sides of EVALUATION_SEED.
            InputError: the folder holds heads made otherwise.
            LockedError: another run is writing to it.
            SemeditError: a process was killed.
    """
    job = Job(n, size, seed, look, views, depth, edits)
    if look not in (*LOOKS, MIXED):
        raise OptionError(f"look is one of {', '.join((*LOOKS, MIXED))}")
    if seed < EVALUATION_SEED < seed + n:
        raise OptionError(f"seeds from {EVALUATION_SEED} up are for evaluation only")
    with alone_in(out, below=("images", "labels", "parts", "depth", "edited")):
        _claim(out, job)
        for done, _ in enumerate(_each(out, job, workers), 1):
            if progress:
                progress(done, n)
        _gather(out, job)


def _claim(out: Path, job: Job) -> None:
    path = out / "heads.json"
    wanted = {k: v for k, v in asdict(job).items() if k != "n"}
    if path.exists():
        found = _held(path)
        if any(found.get(k, UNTOLD.get(k)) != v for k, v in wanted.items()):
            raise InputError(f"{out} holds heads made with other options", "choose another folder")
    write_bytes(path, json.dumps({**asdict(job), "evaluation": job.evaluation}, indent=1).encode())


def _held(path: Path) -> dict[str, Any]:
    """What heads.json says.

    Raises: InputError: it is damaged.
    """
    try:
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
        reason = "no table"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    raise InputError(f"{path} is damaged: {reason}", "choose another folder, or empty this one")


def _each(out: Path, job: Job, workers: int) -> Iterator[int]:
    tasks = [(out, job, index) for index in range(job.n)]
    if workers <= 1:
        yield from map(_write_head, tasks)
        return
    with _pool(workers) as pool:
        try:
            with _shielded():
                futures = [pool.submit(_write_head, task) for task in tasks]
            for done in as_completed(futures):
                yield done.result()
        except BrokenProcessPool as error:
            raise SemeditError(
                "a process that renders heads was killed, perhaps for want of memory",
                "run it again, with a smaller -j: heads that are finished are kept",
            ) from error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that render; when the block ends early, so do they, in the middle of a head."""
    others = multiprocessing.active_children()
    with _shielded():
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
    try:
        yield pool
    except BaseException:
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _shielded() -> Iterator[None]:
    """A block that starts processes. They inherit that they find no modules in the current folder,
    and that Ctrl-C is not for them: it ends the run, and the run ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with Isolated():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare() -> None:
    """In a child: one thread that computes, and one that sees to it that it ends with the run."""
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_head(task: tuple[Path, Job, int]) -> int:
    out, job, index = task
    part = out / "parts" / f"{index:06d}.npz"
    if part.exists():
        return index
    seed = job.seed + index
    look = LOOKS[seed % len(LOOKS)] if job.look == MIXED else job.look
    head = Head(seed, lids=hanging(seed) if look == "hard" else 0.0)
    cameras = [head.camera(*angles) for angles in view_angles(seed, job.views, look)]
    found = [head.render(c, job.size, look) for c in cameras]
    for v, view in enumerate(found):
        _write_view(out, f"{index:06d}_{v}", view, job.depth)
    rng = np.random.default_rng([seed, 13])
    edits = [changed(head, rng) for _ in range(job.edits)]
    for e, (_, other) in enumerate(edits):
        _write_edit(out, f"{index:06d}_{e}", other.render(cameras[0], job.size, look))
    _save(
        part,
        **({"kinds": np.array([kind for kind, _ in edits])} if edits else {}),
        landmarks=np.stack([v.landmarks for v in found]),
        visible=np.stack([v.visible for v in found]),
        c=np.stack([v.c for v in found]),
        attributes=head.attributes,
        z=head.z,
    )
    return index


def _write_view(out: Path, name: str, view: RenderedView, depth: bool) -> None:
    _write_png(out / "images" / f"{name}.png", Image.fromarray(view.image))
    _write_png(out / "labels" / f"{name}.png", palette_image(view.labels))
    if depth:
        _save(out / "depth" / f"{name}.npz", depth=view.depth)


def _write_edit(out: Path, name: str, view: RenderedView) -> None:
    _write_png(out / "edited" / f"{name}.png", Image.fromarray(view.image))
    _write_png(out / "edited" / f"{name}.labels.png", palette_image(view.labels))


def _write_png(path: Path, image: Image.Image) -> None:
    with atomic_path(path) as partial:
        image.save(partial, "PNG", compress_level=3)


def palette_image(labels: np.ndarray) -> Image.Image:
    """Label ids uint8 [S,S] as a palette image."""
    image = Image.fromarray(labels, "P")
    image.putpalette(np.array(PALETTE, np.uint8).tobytes())
    return image


def _save(path: Path, **arrays: np.ndarray) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _part(path: Path, job: Job) -> dict[str, np.ndarray]:
    """The arrays of one head.

    Raises: InputError: the file is damaged.
    """
    shapes = {
        "landmarks": (job.views, 68, 2),
        "visible": (job.views, 68),
        "c": (job.views, 25),
        "attributes": (len(ATTRIBUTES),),
        "z": (DIMENSIONS,),
        **({"kinds": (job.edits,)} if job.edits else {}),
    }
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in shapes}
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        reason = f"{wrong[0]} has another shape" if wrong else ""
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error)
    if reason:
        raise InputError(f"{path} is damaged: {reason}", "delete it, and run the command again")
    return arrays


def _gather(out: Path, job: Job) -> None:
    """Join the parts into arrays.npz and the lists other tools read."""
    parts = []
    for index in range(job.n):
        parts.append(_part(out / "parts" / f"{index:06d}.npz", job))
    arrays = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    _save(out / "arrays.npz", **arrays)
    rows = [
        [f"{i:06d}_{v}.png", arrays["c"][i, v].tolist()]
        for i in range(job.n)
        for v in range(job.views)
    ]
    write_bytes(out / "dataset.json", valid_json.dumps({"labels": rows}).encode())
    lines = [str(job.n), " ".join(name.title() for name in ATTRIBUTES)]
    lines += [
        f"{i:06d}_0.png " + " ".join("1" if a else "-1" for a in arrays["attributes"][i])
        for i in range(job.n)
    ]
    write_bytes(out / "list_attr_celeba.txt", ("\n".join(lines) + "\n").encode())
