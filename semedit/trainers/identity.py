"""Trainer of the identity network, on rendered heads from several sides and truly edited.

    loss = mean over a head's other pictures p in the batch of
           -log exp(scale cos(e, e_p)) / sum over all other pictures k of exp(scale cos(e, e_k))

with e the embedding of a picture. Expression, hair, glasses, make-up, beard and hat do not make
another person of a head; its shape does.

Source: Khosla et al. 2020, arXiv:2004.11362, equation 2.

Every twentieth head is held out for the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from semedit.datasets import augment
from semedit.datasets.edited import Edited, read_edited
from semedit.datasets.rendered import Heads, read_heads
from semedit.datasets.split import held_out
from semedit.faces.identity import IdentityNet
from semedit.trainers.faces import STORED, FaceTask, crop_views

KEEP = ("smile", "mouth", "eyes", "glasses", "hair_length", "hair_look", "makeup", "beard", "hat")


def contrast_loss(embedded: Tensor, owners: Tensor, scale: float) -> Tensor:
    """The module's loss; unit embeddings [N,D] and whose they are, int64 [N]."""
    own = torch.eye(len(owners), dtype=torch.bool)
    cosines = (scale * embedded @ embedded.T).masked_fill(own, -torch.inf)
    same = (owners[:, None] == owners) & ~own
    chance = cosines.log_softmax(1).masked_fill(~same, 0.0)
    return -(chance.sum(1) / same.sum(1).clamp(min=1))[same.any(1)].mean()


@dataclass(frozen=True)
class IdentityTrainer:
    """How alike two faces are."""

    name: ClassVar[str] = "identity"

    batch_size: int = 24  # heads
    pictures: int = 2  # of each
    lr: float = 1e-3  # AdamW
    scale: float = 12.0  # of cosines
    jitter: float = 0.05  # standard deviation of scale and rotation; twice that of the shift
    strength: float = 0.4  # of the changes of light, optics and file
    half: bool = False  # compute in bfloat16

    def start(self, data: Path) -> IdentityTask:
        """The task on a folder of `semedit heads --views 2 --edits 2`, or more of either.

        Raises: InputError: no such folder.
        """
        heads, edited = read_heads(data, STORED), read_edited(data, STORED)
        return IdentityTask(self, heads, edited)


class IdentityTask(FaceTask):
    """IdentityNet; see loop.TrainingTask."""

    def __init__(self, options: IdentityTrainer, heads: Heads, edited: Edited) -> None:
        super().__init__("identity", heads, IdentityNet(), options.lr, options.half)
        self.options, self.edited = options, edited
        n = len(edited.c)
        self.views = len(heads.points) // n
        held = held_out(n)
        self.known, self.unknown = np.flatnonzero(~held), np.flatnonzero(held)
        self.size = len(self.known)

    def batch(self, indices: Tensor) -> np.ndarray:
        """Training heads."""
        return self.known[indices.numpy()]

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
        """One update, on different pictures of each head as far as there are any."""
        del progress
        images, labels = [], []
        for head in batch.tolist():
            all_ = self.places(head)
            drawn = torch.randperm(len(all_)).repeat(self.options.pictures)[: self.options.pictures]
            pixels, ids = self.pictures(head, [all_[i] for i in drawn.tolist()])
            images.append(pixels)
            labels.append(ids)
        seen = self._augmented(np.concatenate(images), np.concatenate(labels))
        owners = torch.from_numpy(batch).repeat_interleave(self.options.pictures)
        embedded = self.run(seen)
        loss = contrast_loss(embedded, owners, self.options.scale)
        self.update(loss)
        told = verification(embedded.detach(), owners)
        return {"identity": float(loss.detach()), **told}

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
