"""weights.toml -> verified local file -> tensors.

Every weight file has a row in weights.toml. Files that semedit trained itself ship in
semedit/data; others live in the user's folder after `fetch` or `add`, and count only when their
sha256 is right. Pickles are read by `torch.load(weights_only=True)` alone, so code in them never
runs. No library that semedit uses downloads anything by itself: `place` puts the verified file
where the library looks.
"""

from semedit.weights.files import CHUNK, file_sha256, on_disk, place, refuse_impostors, resolve
from semedit.weights.remote import Progress, add, download, fetch
from semedit.weights.rows import Row, folder, how_to_get, read_table, row, table
from semedit.weights.tensors import (
    built,
    files,
    fill,
    imported,
    load,
    load_pickle,
    metadata,
    place_for,
    save,
    write_tensors,
    writing,
)

__all__ = [
    "CHUNK",
    "Progress",
    "Row",
    "add",
    "built",
    "download",
    "fetch",
    "file_sha256",
    "files",
    "fill",
    "folder",
    "how_to_get",
    "imported",
    "load",
    "load_pickle",
    "metadata",
    "on_disk",
    "place",
    "place_for",
    "read_table",
    "refuse_impostors",
    "resolve",
    "row",
    "save",
    "table",
    "write_tensors",
    "writing",
]
