"""eval semfaceedit: variants of SemFaceEdit, as its tables 1 and 2 compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semedit.cli.common import Options, Seeded, StepBar, data, device, refuse
from semedit.cli.evaluations.fid import Count, Features, Folder, show_distances


def eval_semfaceedit(
    common: Seeded,
    data_folder: Folder,
    kimg: Annotated[
        float, typer.Option(help="Thousands of pictures to train each variant on.")
    ] = 8.0,
    run: Annotated[
        Path, typer.Option(help="Folder of the runs; existing runs are resumed.")
    ] = Path("runs/semfaceedit-ablation"),
    n: Count = 1000,
    features: Features = "faces",
    options: Options = None,
) -> None:
    """Reproduce tables 1 and 2 of SemFaceEdit at small scale: FID and KID of its variants.

    -o sets options of `semedit train semfaceedit`.
    """
    from semedit.evaluations.fid import FidEvaluation
    from semedit.evaluations.semfaceedit import Ablation
    from semedit.options import build_method
    from semedit.trainers.semfaceedit import SemFaceEditTrainer

    if common.device not in ("auto", "cpu"):
        refuse("the variants are trained on CPUs", "device")
    device(common)
    trainer = build_method(SemFaceEditTrainer, options or ())
    ablation = Ablation(kimg, trainer, FidEvaluation(n, features, seed=common.seed), common.seed)
    with StepBar("eval semfaceedit") as steps:
        found = ablation(
            data_folder, run, progress=lambda name, done, total: steps(done, total, name)
        )
    if common.json:
        data(**found)
        return
    for title, rows in found.items():
        show_distances(f"{title}, {kimg:g} kimg each", "", rows)
