"""Make `import torchvision` work where its compiled operators do not fit the installed torch.

A torchvision wheel built for another torch cannot load its library of operators; importing the
package then fails while it registers the meta kernel of `nms`. `ensure()` registers those two
operators, with a working non-maximum suppression, in that case only. facexlib, face-alignment
and lpips import torchvision, so call `ensure()` before importing any of them.
"""

import importlib.util
from functools import cache
from pathlib import Path

import torch

_library: torch.library.Library | None = None  # torch drops the operators with this object


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: [K,4] x0, y0, x1, y1.
        scores: [K].
        iou_threshold: a box overlapping a better one by more than this is dropped.

    Returns:
        int64 [kept], indices into boxes, best score first.
    """
    x0, y0, x1, y1 = boxes.unbind(1)
    area = (x1 - x0) * (y1 - y0)
    order = scores.argsort(descending=True, stable=True)
    keep = []
    while order.numel():
        best, rest = order[0], order[1:]
        keep.append(best)
        width = (torch.minimum(x1[best], x1[rest]) - torch.maximum(x0[best], x0[rest])).clamp(min=0)
        height = (torch.minimum(y1[best], y1[rest]) - torch.maximum(y0[best], y0[rest])).clamp(
            min=0
        )
        overlap = width * height
        order = rest[overlap <= iou_threshold * (area[best] + area[rest] - overlap)]
    return torch.stack(keep) if keep else order


def _operators_load() -> bool:
    """Whether torchvision's own library of operators loads into this torch."""
    spec = importlib.util.find_spec("torchvision")
    folders = spec.submodule_search_locations if spec else None
    libraries = [p for f in folders or () for p in Path(f).glob("_C.*")]
    try:
        for library in libraries:
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return bool(libraries)


@cache
def ensure() -> bool:
    """Register the missing operators once; returns whether that was necessary."""
    global _library
    if _operators_load():
        return False
    _library = torch.library.Library("torchvision", "DEF")
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):  # qnms: the same on quantised boxes
        _library.define(name + schema)
        _library.impl(name, nms, "CompositeExplicitAutograd")
    import torchvision.extension

    # torchvision.ops.nms asks this flag before it calls the operator.
    torchvision.extension._has_ops = lambda: True
    return True
