"""Label maps by their numbers: which order they are in, as far as a face's own map shows it.

Tools number the same labels differently, and a file of bare numbers does not say whose they are.
Read in the wrong order it is still a label map, of a face with hair for a neck. So numbers are
compared with the face's own map under each known order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semedit.errors import MaskError
from semedit.media.labels import LABELS, SCHEME

FITS = 0.4  # the agreement from which on an order counts at all
CLEAR = 1.5  # how many times better than any other an order must fit

_EARS = "l_ear r_ear ear_r"  # which CIHP has no number for
_FACE = "skin nose eye_g l_eye r_eye l_brow r_brow mouth u_lip l_lip"
# Number -> the labels of ours that it stands for; all others keep what the face has of them. Of a
# number that stands for none, like a shoe, there is no label.
ORDERS: dict[str, tuple[str, ...]] = {
    SCHEME: LABELS,
    "BiSeNet": (
        *("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear"),
        *("ear_r", "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat"),
    ),
    "CIHP": (
        *(
            f"background {_EARS}",
            "hat",
            f"hair {_EARS}",
            "",
            "eye_g",
            "cloth",
            "cloth",
            "cloth",
            "",
            "",
        ),
        *("neck neck_l", "cloth neck_l", "", f"{_FACE} {_EARS}", "", "", "", "", "", ""),
    ),
}


@dataclass(frozen=True)
class Ids:
    """A label map as its file has it.

    Attributes:
        values: int64 [H,W]; order: of ORDERS, None if the file does not say.
    """

    values: np.ndarray
    order: str | None


def understood(ids: Ids, own: np.ndarray) -> tuple[np.ndarray, str | None]:
    """A map as CelebAMask-HQ ids, by the face's own map where the file does not name its order.

    Of an order whose numbers stand for several labels, such as all of a face, the face's own ones
    stay where they are among these.

    Args:
        ids: of the own map's size. own: int64 [H,W].

    Returns:
        int64 [H,W], and a warning if it is not taken as CelebAMask-HQ's without a doubt.

    Raises:
        MaskError: no order clearly fits; or a number has no label.
    """
    if ids.order is not None:
        return _translated(ids, ids.order, own), None
    fits = {name: agreement(ids.values, name, own) for name in ORDERS}
    best, *others = sorted(fits, key=lambda name: -fits[name])
    told = ", ".join(f"{name} {value:.0%}" for name, value in fits.items())
    found = {name: _translated(ids, name, own) for name in fits if fits[name] > 0}
    alike = {name for name in found if np.array_equal(found[name], found[best])}
    if found and all(fits[best] >= CLEAR * fits[name] or name in alike for name in others):
        same = SCHEME in alike
        if same or fits[best] >= FITS:
            return found[best], None if same else f"read in the label order of {best} ({told})"
    raise MaskError(
        f"its numbers do not say which labels they mean: they agree with the face's own map by "
        f"{told}",
        f"paint it in the colours of {SCHEME}, or over the face's own map",
    )


def agreement(values: np.ndarray, order: str, own: np.ndarray) -> float:
    """Mean intersection over union with the own map, over the numbers of an order that either
    has, background apart; 0 where a number is none of the order's."""
    meant = [_labels(entry) for entry in ORDERS[order]]
    present = np.unique(values)
    if present.min() < 0 or present.max() >= len(meant) or any(not meant[i] for i in present):
        return 0.0
    shares = []
    for labels in dict.fromkeys(entry for entry in meant[1:] if entry):
        numbers = [i for i, entry in enumerate(meant) if entry == labels]
        # Where the face has a label that several numbers may stand for, either is right.
        known = ~np.isin(own, [i for i in labels if any(i in e for e in meant if e != labels)])
        theirs, ours = np.isin(values, numbers) & known, np.isin(own, labels) & known
        either = int((theirs | ours).sum())
        if either:
            shares.append(int((theirs & ours).sum()) / either)
    return float(np.mean(shares)) if shares else 0.0


def _labels(entry: str) -> tuple[int, ...]:
    return tuple(LABELS.index(name) for name in entry.split())


def _translated(ids: Ids, order: str, own: np.ndarray) -> np.ndarray:
    """Numbers of an order -> CelebAMask-HQ ids.

    Raises: MaskError: a number has no label.
    """
    meant = [_labels(entry) for entry in ORDERS[order]]
    found = np.full(ids.values.shape, -1, np.int64)
    for number in np.unique(ids.values):
        if not 0 <= number < len(meant) or not meant[number]:
            raise MaskError(f"{number} of {order} is no label of a face")
        here = ids.values == number
        found[here] = meant[number][0]
        kept = here & np.isin(own, meant[number])
        found[kept] = own[kept]
    return found
