"""How far an edit moved a face from its photograph, by networks that no edit descends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from semedit import losses
from semedit.faces import pipeline
from semedit.faces.attributes import Classifier, Judge
from semedit.faces.identity import similarity
from semedit.faces.likeness import recogniser, recogniser_weights
from semedit.media.labels import ATTRIBUTES, attribute_flag
from semedit.media.pixels import resize

DRIFT = 0.5  # 1 - identity from which an edit that says nothing of it warns
SEEN = 0.5  # chance from which an attribute counts as there
SURE = 0.25  # by which both classifiers must have moved for another attribute to count as changed


@dataclass(frozen=True, eq=False)
class Change:
    """An edit beside its photograph.

    Attributes:
        photo, edited: float32 [1,3,S,S] in [-1,1], of one size.
        mask: [1,1,S,S]: where the edit changed something.
        wanted: attribute -> whether the face shall have it.
        labels: int64 [1,R,R]: the face's own map; drawn: what was drawn over it, or None.
    """

    photo: Tensor
    edited: Tensor
    mask: Tensor
    wanted: Mapping[str, bool]
    labels: Tensor
    drawn: Tensor | None = None


def drift_weights() -> tuple[str, ...]:
    """The weights of the networks that `drift` asks."""
    return ("traits", "judge", *recogniser_weights())


@torch.no_grad()
def drift(change: Change, limit: float | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of an edit for its receipt, and warnings.

        identity             cosine of the face's embedding before and after; identity_by: whose
        perceptual_inside    distance that the change makes inside the region, and what is left of
        perceptual_outside   it outside, by the built-in face network's features
        judged               of attribute edits: mean chance that the second classifier gives what
                             was asked; classified: the same of the first
        also_changed         attributes that nobody asked for and both classifiers see changed
        labels_seen          of map edits: share of the relabelled pixels where a parser that the
                             edit did not ask, if there is one on the disk, sees what was drawn
        held                 whether the second classifier sees what was asked

    Args: limit: largest 1 - identity; None: warn from DRIFT on.
    """
    photo, edited = change.photo, change.edited
    device = str(photo.device)
    knows = recogniser(device)
    likeness = float(similarity(knows(photo), knows(edited)))
    figures: dict[str, Any] = {"identity": round(likeness, 4), "identity_by": knows.name}
    figures |= _distances(change, device)
    warnings = []
    if 1 - likeness > (DRIFT if limit is None else limit):
        warnings.append(f"the face may no longer be the same person's (likeness {likeness:.2f})")
    before, after = (_chances(image, device) for image in (photo, edited))
    figures["also_changed"] = _others(before, after, change.wanted)
    if change.wanted:
        told, doubts = _asked(before, after, change.wanted)
        figures |= told
        warnings += doubts
    if change.drawn is not None:
        figures |= _labels(change, device)
    return figures, tuple(warnings)


def _distances(change: Change, device: str) -> dict[str, float]:
    network = losses.perceptual("faces", device)
    photo = network.features(change.photo)
    inside = torch.lerp(change.photo, change.edited, change.mask)
    outside = torch.lerp(change.edited, change.photo, change.mask)
    return {
        f"perceptual_{name}": round(float(losses.distance(photo, network.features(image))), 4)
        for name, image in (("inside", inside), ("outside", outside))
    }


def _chances(image: Tensor, device: str) -> Tensor:
    """[2,A]: by the first classifier and by the second."""
    return torch.cat([kind(device)(image) for kind in (Classifier, Judge)]).sigmoid()


def _others(before: Tensor, after: Tensor, wanted: Mapping[str, bool]) -> list[str]:
    moved = after - before
    both = (moved.abs() > SURE).all(0) & (moved[0].sign() == moved[1].sign())
    both &= ((before > SEEN) != (after > SEEN)).all(0)
    return [name for name, yes in zip(ATTRIBUTES, both.tolist(), strict=True)
            if yes and name not in wanted]  # fmt: skip


def _asked(
    before: Tensor, after: Tensor, wanted: Mapping[str, bool]
) -> tuple[dict[str, Any], list[str]]:
    known = {name: value for name, value in wanted.items() if name in ATTRIBUTES}
    if not known:
        return {}, []
    places = [ATTRIBUTES.index(name) for name in known]
    wish = torch.tensor([float(value) for value in known.values()]).to(after)
    reached = 1 - (after[:, places] - wish).abs()
    missed = [name for name, chance in zip(known, reached[1].tolist(), strict=True)
              if chance < SEEN]  # fmt: skip
    flags = ", ".join(attribute_flag(name, known[name]) for name in missed)
    doubts = [f"a second classifier does not see it: {flags}"] if missed else []
    means = reached.mean(1).tolist()
    told = {"classified": round(means[0], 4), "judged": round(means[1], 4), "held": not missed}
    return told, doubts


def _labels(change: Change, device: str) -> dict[str, Any]:
    assert change.drawn is not None
    relabelled = change.drawn != change.labels
    if not relabelled.any():
        return {}
    parser = pipeline.second_parser("builtin", device=device)
    seg = parser(change.edited)
    seen = resize(seg, change.drawn.shape[-1]).argmax(1).to(change.drawn)
    right = (seen == change.drawn)[relabelled].float().mean()
    return {"labels_seen": round(float(right), 4), "labels_by": parser.name}
