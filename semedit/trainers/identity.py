"""Trainer of the identity network, on rendered heads from several sides and truly edited.

    loss = cross-entropy of scale * (cos(e, w_i) - margin [i = y]) over the training heads i

with e the embedding of a picture of head y and w_i a learned unit vector a head. Expression, hair,
glasses, make-up, beard and hat do not make another person of a head; its shape does.

Source: Wang et al. 2018 (CosFace), arXiv:1801.09414, equation 4.

Every twentieth head is held out for the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semedit.datasets import augment
from semedit.datasets.edited import Edited, read_edited
from semedit.datasets.rendered import Heads, read_heads
from semedit.datasets.split import held_out
from semedit.faces.identity import IdentityNet
from semedit.trainers.faces import STORED, FaceTask, crop_views

KEEP = ("smile", "mouth", "eyes", "glasses", "hair_length", "hair_look", "makeup", "beard", "hat")


class Prototypes(nn.Module):
    """A unit vector a head: embeddings [N,D] -> cosines [N,heads]."""

    def __init__(self, heads: int, entries: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(heads, entries) / entries**0.5)

    def forward(self, embeddings: Tensor) -> Tensor:
        return embeddings @ F.normalize(self.weight).T


def margin_loss(cosines: Tensor, truth: Tensor, scale: float, margin: float) -> Tensor:
    """The module's loss; cosines [N,heads], truth int64 [N]."""
    apart = cosines - margin * F.one_hot(truth, cosines.shape[1])
    return F.cross_entropy(scale * apart, truth)


@dataclass(frozen=True)
class IdentityTrainer:
    """How alike two faces are."""

    name: ClassVar[str] = "identity"

    batch_size: int = 16  # heads
    pictures: int = 3  # of each
    lr: float = 2e-3  # AdamW
    scale: float = 20.0  # of cosines
    margin: float = 0.25  # by which a head's own cosine must lead, at last
    ramp: float = 0.5  # part of the run over which the margin grows from 0
    jitter: float = 0.05  # standard deviation of scale and rotation; twice that of the shift
    strength: float = 0.6  # of the changes of light, optics and file
    half: bool = False  # compute in bfloat16

    def start(self, data: Path) -> IdentityTask:
        """The task on a folder of `semedit heads --views 2 --edits 2`, or more of either.

        Raises: InputError: no such folder.
        """
        heads, edited = read_heads(data, STORED), read_edited(data, STORED)
        return IdentityTask(self, heads, edited)


class IdentityTask(FaceTask):
    """IdentityNet and its prototypes; see loop.TrainingTask."""

    def __init__(self, options: IdentityTrainer, heads: Heads, edited: Edited) -> None:
        super().__init__("identity", heads, IdentityNet(), options.lr, options.half)
        self.options, self.edited = options, edited
        n = len(edited.c)
        self.views = len(heads.points) // n
        held = held_out(n)
        self.known, self.unknown = np.flatnonzero(~held), np.flatnonzero(held)
        entries = self.network.config["entries"]  # type: ignore[index]
        self.prototypes = Prototypes(len(self.known), int(entries))
        self.modules["prototypes"] = self.prototypes
        self.optimisers["network"].add_param_group(
            {"params": list(self.prototypes.parameters()), "weight_decay": 0.0, "lr": options.lr}
        )
        self.size = len(self.known)

    def batch(self, indices: Tensor) -> np.ndarray:
        """Places of training heads among the prototypes."""
        return indices.numpy()

    def places(self, head: int) -> list[tuple[bool, int]]:
        """A head's pictures: (is an edit, its number among views or edits)."""
        kinds = self.edited.kinds[head]
        edits = [(True, 1 + e) for e, kind in enumerate(kinds) if kind in KEEP]
        return [(False, head * self.views + v) for v in range(self.views)] + edits

    def pictures(self, head: int, chosen: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [K,R,R,3], and labels uint8 [K,R,R]."""
        pairs = []
        for is_edit, number in chosen:
            if is_edit:
                pairs.append((self.edited.images[head, number], self.edited.labels[head, number]))
            else:
                index = np.array([number])
                pairs.append((self.heads.pixels(index)[0], self.heads.labels(index)[0].numpy()))
        images, labels = zip(*pairs, strict=True)
        return np.stack(images), np.stack(labels)

    def step(self, batch: np.ndarray, progress: float) -> dict[str, float]:
        """One update."""
        images, labels = [], []
        for place in batch:
            head = int(self.known[place])
            all_ = self.places(head)
            drawn = torch.randint(len(all_), (self.options.pictures,)).tolist()
            pixels, ids = self.pictures(head, [all_[i] for i in drawn])
            images.append(pixels)
            labels.append(ids)
        seen = self._augmented(np.concatenate(images), np.concatenate(labels))
        truth = torch.from_numpy(batch).repeat_interleave(self.options.pictures)
        cosines = self.prototypes(self.run(seen))
        margin = self.options.margin * min(1.0, progress / max(self.options.ramp, 1e-6))
        loss = margin_loss(cosines, truth, self.options.scale, margin)
        self.update(loss)
        right = (cosines.argmax(1) == truth).float().mean()
        return {"identity": float(loss.detach()), "right": float(right)}

    def _augmented(self, pixels: np.ndarray, labels: np.ndarray) -> Tensor:
        """float32 [N,3,R,R] in [0,1]: other crops, backgrounds, light and optics."""
        n, size = len(pixels), pixels.shape[1]
        places = augment.grid(crop_views(n, self.options.jitter), size)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        seen = augment.see(images, places)
        stored = torch.from_numpy(labels)[:, None].float()
        known = augment.see(stored, places, "nearest")[:, 0].long()
        around = augment.sized(self.scenes(n), size)
        seen = augment.rescene(seen, known, around, 0.3)
        return augment.photograph(seen, self.options.strength)

    def evaluate(self, modules: dict[str, nn.Module]) -> dict[str, float]:
        """Of held-out heads' pictures, all pairs: mean cosine of the same and of others, and the
        chance that one of the same is higher (auc)."""
        embedded, owners = [], []
        for head in self.unknown:
            pixels, _ = self.pictures(int(head), self.places(int(head)))
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
            embedded.append(modules["network"](images))
            owners += [int(head)] * len(pixels)
        return verification(torch.cat(embedded), torch.tensor(owners))


def verification(embedded: Tensor, owners: Tensor) -> dict[str, float]:
    """same, others: mean cosines of pairs of unit embeddings [N,D]; auc: the chance that a pair of
    one owner, int64 [N], has a higher one than a pair of two."""
    cosines = embedded @ embedded.T
    first, second = torch.triu_indices(len(embedded), len(embedded), 1)
    values, same = cosines[first, second], owners[first] == owners[second]
    if same.all() or not same.any():
        return {}
    one, two = values[same], values[~same].sort().values
    below = torch.searchsorted(two, one) + torch.searchsorted(two, one, right=True)
    return {
        "same": float(one.mean()),
        "others": float(two.mean()),
        "auc": float((below / 2).mean() / len(two)),
    }
