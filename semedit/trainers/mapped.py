"""How near held-out heads are that a generator draws from their parameters alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from semedit.trainers.rendered import View, Views
from semedit.trainers.triplane import decibels

TOGETHER = 4  # heads drawn in one go


@torch.no_grad()
def mapped_figures(
    generator: Any,
    views: Views,
    heads: Tensor,
    guided: Callable[[View], dict[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Of the first views of heads (int64): mapped_db, decibels; mapped_labels, the share of right
    labels. A generator whose z has not as many entries as heads have parameters has no figures.

    guided: the codes of views, by a guide or an encoder; encoded_db is then how near the first
            views are when they are drawn from codes of the last ones.
    """
    count, place = views.z.shape[1], next(generator.parameters()).device
    if generator.z_dim != count:
        return {}
    found, right, encoded = [], [], []
    last = views.c.shape[1] - 1
    for part in heads.split(TOGETHER):
        view = views.one(part, torch.zeros_like(part)).to(place)
        output = generator.synthesis(generator.mapping(view.z, view.c), view.c)
        found.append(decibels(output.image, view.images))
        right.append((output.seg.argmax(1) == view.labels).float().mean((1, 2)))
        if guided is not None:
            codes = guided(views.one(part, torch.full_like(part, last)).to(place))
            encoded.append(decibels(generator.synthesis(codes, view.c).image, view.images))
    figures = {"mapped_db": found, "mapped_labels": right, "encoded_db": encoded}
    return {k: round(float(torch.cat(v).mean()), 4) for k, v in figures.items() if v}
