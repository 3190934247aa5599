"""How near held-out heads are that a generator draws from their parameters alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from semedit.trainers.rendered import Views
from semedit.trainers.triplane import decibels

TOGETHER = 4  # heads drawn in one go


@torch.no_grad()
def mapped_figures(generator: Any, views: Views, heads: Tensor) -> dict[str, float]:
    """Of the first views of heads (int64): mapped_db, decibels; mapped_labels, the share of right
    labels. A generator whose z has not as many entries as heads have parameters has no figures.
    """
    count, place = views.z.shape[1], next(generator.parameters()).device
    if generator.z_dim != count:
        return {}
    found, right = [], []
    for part in heads.split(TOGETHER):
        view = views.one(part, torch.zeros_like(part))
        images, labels, c, z = (x.to(place) for x in (view.images, view.labels, view.c, view.z))
        output = generator.synthesis(generator.mapping(z, c), c)
        found.append(decibels(output.image, images))
        right.append((output.seg.argmax(1) == labels).float().mean((1, 2)))
    return {
        "mapped_db": round(float(torch.cat(found).mean()), 4),
        "mapped_labels": round(float(torch.cat(right).mean()), 4),
    }
