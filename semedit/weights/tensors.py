"""Weight files <-> tensors. Pickles are read as data; no code in them runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from semedit.errors import WeightsError
from semedit.media.files import is_temporary, write_bytes
from semedit.weights.files import refuse_impostors, resolve
from semedit.weights.rows import _check_path, folder, table

if TYPE_CHECKING:
    import torch


def files() -> list[Path]:
    """The user's own safetensors files, sorted; what a killed process left half-written is none."""
    found = sorted(folder().glob("*.safetensors"))
    return [path for path in found if path.is_file() and not is_temporary(path.name)]


@contextmanager
def writing() -> Iterator[None]:
    """Put a file into the user's folder, after clearing what killed processes left half-written.

    Who writes holds the folder's own lock together with others; who holds it alone may clear. So
    nobody waits for long, and no file is needed for it.
    """
    own = folder()
    own.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # no locks of folders here: nothing is cleared
            import fcntl

            held = os.open(own, os.O_RDONLY)
            stack.callback(os.close, held)
            with suppress(BlockingIOError):  # another process is writing
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(own)
            fcntl.flock(held, fcntl.LOCK_SH)
        yield


def _clear(own: Path) -> None:
    for path in own.iterdir():
        if is_temporary(path.name) and path.is_file() and not path.is_symlink():
            path.unlink()


def place_for(name: str, source_sha256: str) -> Path:
    """Where a converted checkpoint goes: the user's folder.

    Args:
        name: new, or of a row of kind "checkpoint".
        source_sha256: of the checkpoint; converting the same one again is no clash.

    Raises:
        WeightsError: no safe name, or it means something else already.
    """
    _check_path(name, name)
    entry = table().get(name)
    if entry is not None and entry.kind != "checkpoint":
        raise WeightsError(f"{name} is the name of a {entry.kind} file", "give another --name")
    if entry is not None and not source_sha256.startswith(entry.sha256):
        raise WeightsError(f"{name} has sha256 {entry.sha256[:16]}..., not {source_sha256[:16]}...")
    target = folder() / (entry.file if entry else f"{name}.safetensors")
    if target.is_file() and metadata(target).get("source_sha256") != source_sha256:
        raise WeightsError(f"{target} is there already, from another file", "give another --name")
    return target


def imported() -> dict[str, dict[str, str]]:
    """name -> metadata of converted checkpoints that have no row of their own."""
    taken = {row.file for row in table().values()}
    found = {}
    for path in files():
        try:
            facts = metadata(path)
        except WeightsError:
            continue  # damaged: whoever asks for it is told
        if path.name not in taken and "source_sha256" in facts:
            found[path.stem] = facts
    return found


def load(name: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors (floating ones as float32) and metadata of a safetensors file, by name or path.

    Raises:
        WeightsError: not there, or not a whole safetensors file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = resolve(name) if isinstance(name, str) else name
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    return {
        k: v.to(torch.float32) if v.is_floating_point() else v for k, v in tensors.items()
    }, metadata


def metadata(path: str | Path) -> dict[str, str]:
    """What a safetensors file says about itself, without reading its tensors.

    Raises:
        WeightsError: not there, or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error


T = TypeVar("T")
DAMAGED = (  # what building a network raises whose configuration cannot be
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    MemoryError,
)


def built(make: Callable[[dict[str, Any]], T], metadata: Mapping[str, str], name: str | Path) -> T:
    """What `make` builds of the configuration in a weight file's metadata.

    Raises:
        WeightsError: there is none, or nothing can be built of it.
    """
    try:
        config = json.loads(metadata["config"])
        return make(dict(config))
    except DAMAGED as error:  # a RecursionError is a RuntimeError
        reason = str(error).split("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{name} has a damaged configuration: {reason}", "get or make the file again"
        ) from error


def fill(network: torch.nn.Module, tensors: dict[str, torch.Tensor], name: str | Path) -> None:
    """Give a network the tensors of a weight file.

    Counters of batch normalisation may be missing; they play no part in inference.

    Raises:
        WeightsError: tensors are missing, unknown or of another shape.
    """
    own = network.state_dict()
    counters = {k for k in own if k.endswith("num_batches_tracked")}
    wrong = {
        "missing": sorted(own.keys() - tensors.keys() - counters),
        "unknown": sorted(tensors.keys() - own.keys()),
        "of another shape": [
            k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape
        ],
    }
    told = [f"{len(keys)} {how} ({keys[0]})" for how, keys in wrong.items() if keys]
    if told:
        raise WeightsError(
            f"the tensors of {name} do not fit their network: {', '.join(told)}",
            "the file was made by another version of semedit; make or fetch it again",
        )
    network.load_state_dict(tensors, strict=False)


def save(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    half: bool = True,
) -> None:
    """Write a safetensors file atomically, floating tensors as float16 (or float32).

    Raises:
        WeightsError: a value is not finite, or not in the range of float16.
    """
    import torch

    kind = torch.float16 if half else torch.float32
    ready = {k: v.to(kind) if v.is_floating_point() else v for k, v in tensors.items()}
    for key, value in ready.items():
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key} holds values that are not finite numbers")
    write_tensors(path, ready, metadata)


def write_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a safetensors file atomically, as it is; the same content gives the same bytes."""
    from safetensors.torch import save as serialise

    data = serialise({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    # safetensors writes its metadata in random order; the header is made anew, sorted.
    length = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items()))} | json.loads(data[8 : 8 + length])
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, len(text).to_bytes(8, "little") + text + data[8 + length :])


def load_pickle(path: str | Path) -> Any:
    """Read a PyTorch checkpoint that holds only tensors and plain containers.

    Raises:
        WeightsError: damaged, or it would have to run code, which is never done.
    """
    import torch

    refuse_impostors(Path(path), "checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a malformed pickle makes its reader raise nearly anything
        # Without what torch says of it, which is how to have the code run all the same.
        raise WeightsError(f"{path} is damaged, or needs code to load, which is not run") from error
