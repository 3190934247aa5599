"""semedit: semantic face editing in batches, from the command line or from Python.

Symbols and shapes, the same in every module (N faces, R pixels, all tensors float32 unless said):

    image       [N,3,R,R]   sRGB in [-1,1]
    labels      [N,R,R]     int64, CelebAMask-HQ ids 0..18 (media.labels.LABELS)
    seg         [N,19,R,R]  logits of the labels
    mask        [N,1,R,R]   in [0,1]
    z           [N,z_dim]   standard normal
    w, ws       [N,w_dim], [N,num_ws,w_dim]   style code, one per layer (W+)
    codes       dict of named tensors, what a generator's mapping gives ("ws", "structure", ...)
    planes      what a camera-aware generator computes once per face
    c           [N,25]      camera label: cam2world 4x4 row-major, then normalised intrinsics 3x3
    yaw, pitch, roll        radians; yaw > 0 faces the picture's right, pitch > 0 faces up,
                            roll > 0 is turned clockwise in the picture
    landmarks   [68,2]      pixels (x, y), iBUG order, pixel centres at +0.5
    quad        [4,2]       corners of the aligned crop in the photograph, pixels: top left,
                            bottom left, bottom right, top right

World: x to the picture's right, y up, z out of the face; all that is visible lies in
[-0.5, 0.5]^3; the camera circles at radius 2.7 with focal length 4.2647 image widths.

Importing this package loads neither torch nor numpy; the names below load on first use.
"""

from semedit.version import __version__

# Nothing is imported up front, not even `typing`: `python -m semedit.cli` looks in the current
# folder first, until semedit.cli forbids it.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from semedit.errors import SemeditError
    from semedit.faces import Face
    from semedit.generators import Generator, Output, load_generator
    from semedit.latents import Latent
    from semedit.media.masks import read_labels, write_labels
    from semedit.media.photographs import read_photo, write_image
    from semedit.notebook import Faces, edit, invert, load_faces, show, turntable
    from semedit.renders import write_animation

_HOMES = {
    "Face": "faces",
    "Faces": "notebook",
    "Generator": "generators",
    "Latent": "latents",
    "Output": "generators",
    "SemeditError": "errors",
    "edit": "notebook",
    "invert": "notebook",
    "load_faces": "notebook",
    "load_generator": "generators",
    "read_labels": "media.masks",
    "read_photo": "media.photographs",
    "show": "notebook",
    "turntable": "notebook",
    "write_animation": "renders",
    "write_image": "media.photographs",
    "write_labels": "media.masks",
}

__all__ = [
    "Face",
    "Faces",
    "Generator",
    "Latent",
    "Output",
    "SemeditError",
    "__version__",
    "edit",
    "invert",
    "load_faces",
    "load_generator",
    "read_labels",
    "read_photo",
    "show",
    "turntable",
    "write_animation",
    "write_image",
    "write_labels",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'semedit' has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found
