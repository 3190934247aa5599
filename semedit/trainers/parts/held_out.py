"""How near held-out heads are that a generator draws from their parameters alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from semedit import metrics
from semedit.datasets.rendered import View, Views
from semedit.generators.contract import Generator
from semedit.media.labels import LABELS

TOGETHER = 4  # heads drawn in one go


@torch.no_grad()
def held_out_figures(
    generator: Generator,
    views: Views,
    heads: Tensor,
    guided: Callable[[View], dict[str, Tensor]] | None = None,
) -> dict[str, float]:
    """Of the first views of heads (int64): mapped_db, decibels; mapped_labels, the share of right
    labels; mapped_miou, over the labels that are there. A generator whose z has not as many entries
    as heads have parameters has no figures.

    guided: the codes of views, by a guide or an encoder; encoded_db is then how near the first
            views are when they are drawn from codes of the last ones.
    """
    count, place = views.z.shape[1], next(generator.parameters()).device
    if generator.z_dim != count:
        return {}
    found, right, encoded = [], [], []
    counts = torch.zeros(len(LABELS), len(LABELS), dtype=torch.long)
    last = views.c.shape[1] - 1
    for part in heads.split(TOGETHER):
        view = views.one(part, torch.zeros_like(part)).to(place)
        output = generator.synthesis(generator.mapping(view.z, view.c), view.c)
        found.append(metrics.psnr(output.image, view.images))
        assert output.seg is not None
        labels = output.seg.argmax(1)
        right.append(metrics.label_accuracy(labels, view.labels))
        counts += metrics.confusion(labels.cpu(), view.labels.cpu())
        if guided is not None:
            codes = guided(views.one(part, torch.full_like(part, last)).to(place))
            encoded.append(metrics.psnr(generator.synthesis(codes, view.c).image, view.images))
    figures = {"mapped_db": found, "mapped_labels": right, "encoded_db": encoded}
    means = {k: float(torch.cat(v).mean()) for k, v in figures.items() if v}
    return {k: round(v, 4) for k, v in (means | {"mapped_miou": metrics.mean_iou(counts)}).items()}
