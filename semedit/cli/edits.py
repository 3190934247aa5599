"""edit and attr: what changes faces, one step of their chain at a time."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semedit.cli.common import (
    Detail,
    From,
    Label,
    Made,
    MaxDrift,
    Method,
    Seed,
    Start,
    command,
    label_of,
    refuse,
    run,
    say,
    typed,
)
from semedit.cli.drawing import draw_faces
from semedit.cli.paste import IntoPhoto, pasted_after
from semedit.errors import OptionError
from semedit.media.labels import CELEBA, attribute_flag
from semedit.options import Setting, typed_value

if TYPE_CHECKING:
    from semedit.tasks.steps import Step

REGION: dict[str, Any] = {"rich_help_panel": "Regions"}  # of options
Strength = float | str


@dataclass(frozen=True)
class Place:
    """Where a step starts in a face's chain (--from), what it is called (--label; "": as it calls
    itself), and how it keeps to the photograph; see tasks.edit.Edit."""

    start: str | None
    label: str
    detail: bool = True
    max_drift: float | None = None


def strength_of(given: Any) -> Strength:
    """One strength, or the text FROM:TO:COUNT, which stays one.

    Raises: OptionError: neither.
    """
    if isinstance(given, str) and ":" in given:
        return given
    strength: float = typed_value(given, float, "strength")
    return strength


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "edit")(edit)
    command(app, "attr", extra=_attribute_flags())(attr)


def edit(
    common: Made,
    mask: Annotated[
        Path | None,
        typer.Option(help="An edited label map, or a folder of them named like the faces."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", "-m", help="Editor for --mask: mask, or canonical, which takes one pass."
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="Move along this direction; see `semedit directions list`.")
    ] = None,
    strength: Annotated[
        Any,
        typer.Option(
            parser=strength_of,
            metavar="NUMBER|FROM:TO:COUNT",
            help="Strength in standard deviations; FROM:TO:COUNT, like -3:3:7, makes a strip.",
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers that the direction moves, like 0-7; default: all.")
    ] = None,
    transfer_from: Annotated[
        str | None, typer.Option(help="Face to take the regions from.", **REGION)
    ] = None,
    texture_from: Annotated[
        str | None,
        typer.Option(help="Face to take the texture from: a name, latent or picture.", **REGION),
    ] = None,
    texture_seed: Annotated[
        int | None, typer.Option(help="Seed of a random texture for the regions.", **REGION)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="hair, skin, nose, eyes or lips: edit this region in one pass, without inversion. "
            "With --transfer-from and --texture-...: regions like hair,lips. With --direction: "
            "the regions whose codes move, if the generator's codes have regions.",
            **REGION,
        ),
    ] = None,
    style_noise: Annotated[
        float | None,
        typer.Option(help="Noise added to the region's style; 1: an entirely new one.", **REGION),
    ] = None,
    style_from: Annotated[
        str | None,
        typer.Option(help="Face, by name or picture, to take the region's style from.", **REGION),
    ] = None,
    structure_noise: Annotated[
        float | None,
        typer.Option(help="Noise added to the region's shape, for example 0.5.", **REGION),
    ] = None,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published", help="Also smooth the whole picture, as published.", **REGION
        ),
    ] = False,
    shift: Annotated[
        str | None,
        typer.Option(
            metavar="RIGHT,DOWN",
            help="Shift the face by shares of the picture, like 0.1,-0.05 (StyleGAN3).",
        ),
    ] = None,
    rotate: Annotated[
        float | None, typer.Option(help="Turn the face to the left by degrees (StyleGAN3).")
    ] = None,
    start: From = None,
    label: Label = None,
    detail: Detail = True,
    max_drift: MaxDrift = None,
    into_photo: IntoPhoto = False,
    seed: Seed = 0,
) -> None:
    """Edit faces by an edited label map, along a direction, by regions of another face, by the
    style of a region, or by their place in the picture.

    A strip of strengths is only a picture, sweeps/NAME/DIRECTION.png; it does not become a step in
    the face's chain of edits. Pictures of edits keep the photograph where nothing changed;
    turntables are the generator's alone. Edits of a region in one pass need heads-l2sae-128 or
    other weights made by `semedit train l2sae`; choose them with -w NAME.
    """
    styled = {
        "--style-noise": style_noise,
        "--style-from": style_from,
        "--structure-noise": structure_noise,
        "--as-published": as_published or None,
    }
    way = _way(
        {
            "--mask": mask,
            "--direction": direction,
            "--transfer-from": transfer_from,
            "--texture-from": texture_from,
            "--texture-seed": texture_seed,
            "--shift": shift,
            "--rotate": rotate if shift is None else None,
        },
        styled,
        {
            "--method": method,
            "--strength": strength,
            "--layers": layers,
            "--no-detail": None if detail else True,
            "--max-drift": max_drift,
        },
        region,
    )
    place = Place(start, label_of(label), detail, max_drift)
    if way != "--region" and not (way == "--mask" and start == "none"):
        refuse("only edits of a region and faces made from a map alone are random", "seed")
    if into_photo and (start == "none" or isinstance(strength, str)):
        raise OptionError(
            "--into-photo needs a step of a photograph's face",
            "leave it out with --from none and strips of strengths",
        )
    with pasted_after(common, into_photo):
        if way == "--transfer-from":
            _transfer(common, str(transfer_from), region, place)
        elif way.startswith("--texture"):
            _texture(common, texture_from, texture_seed, region, place)
        elif way == "--region":
            noise = {"style_noise": style_noise, "structure_noise": structure_noise}
            options = {"region": region, **noise, "as_published": as_published, "seed": seed}
            _restyle(common, options, style_from, place)
        elif way in ("--shift", "--rotate"):
            _moved(common, shift, rotate, place)
        elif way == "--mask":
            _mask(common, Path(str(mask)), method, place, seed)
        else:
            _direction(common, str(direction), region, strength, layers, place)


# What goes with each way to edit, besides --from.
GOES_WITH = {
    "--mask": ("--method", "--no-detail", "--max-drift"),
    "--direction": ("--region", "--strength", "--layers", "--no-detail", "--max-drift"),
    "--transfer-from": ("--region", "--no-detail", "--max-drift"),
    "--texture-from": ("--region", "--no-detail", "--max-drift"),
    "--texture-seed": ("--region", "--no-detail", "--max-drift"),
    "--shift": ("--rotate",),
    "--rotate": (),
    "--region": ("--style-noise", "--style-from", "--structure-noise", "--as-published"),
}


def _way(
    ways: dict[str, Any], styled: dict[str, Any], others: dict[str, Any], region: str | None
) -> str:
    """The one way to edit that is asked for: the option that says it.

    Args:   ways, styled, others: options and what was given for them, None: nothing.
    Raises: OptionError: none, several, or an option that has nothing to say there.
    """
    given = [name for name, value in ways.items() if value is not None]
    noted = [name for name, value in (styled | others).items() if value is not None]
    if len(given) > 1:
        raise OptionError(f"give only one way to edit, not {' and '.join(given)}")
    if not given and region is None:
        if any(name in styled for name in noted):
            raise OptionError(
                "no region is given", "say which region: --region hair, skin, nose, eyes or lips"
            )
        raise OptionError(
            "no edit is given",
            "say how to edit, by --mask, --direction, --region, --transfer-from or --texture-from",
        )
    way = given[0] if given else "--region"
    noted += ["--region"] if region is not None and given else []
    wrong = [name for name in noted if name not in GOES_WITH[way]]
    if wrong:
        fit = " or ".join(name for name, known in GOES_WITH.items() if wrong[0] in known)
        raise OptionError(f"{way} takes no {wrong[0]}", f"it goes with {fit}")
    return way


def _mask(common: Made, mask: Path, method: str | None, place: Place, seed: int) -> None:
    """A drawn label map, or a folder of them."""
    if not mask.exists():
        raise OptionError(f"no mask at {mask}")
    if mask.is_dir() and not os.access(mask, os.R_OK | os.X_OK):
        raise OptionError(f"the folder {mask} cannot be read", "change its permissions")
    if place.start == "none":
        why = "a face made from a map alone has a method of its own, and the map's name"
        refuse(why, "method", "batch", "label")
        refuse("a face made from a map alone has no photograph", "detail", "max_drift")
        draw_faces(common, mask, seed)
        return
    from semedit.tasks import steps

    _edit(common, steps.by_mask(mask, method, common.options or ()), place)


def _direction(
    common: Made,
    name: str,
    region: str | None,
    strength: Strength | None,
    layers: str | None,
    place: Place,
) -> None:
    """Along a direction, by one strength or a strip of them."""
    from semedit.tasks import steps

    one = None if isinstance(strength, str) else strength
    step = steps.along(name, one, region, layers, common.options or ())
    if isinstance(strength, str):
        _sweep(common, strength, step.settings, place)
    else:
        _edit(common, step, place)


def _moved(common: Made, shift: str | None, rotate: float | None, place: Place) -> None:
    """Shifted and turned within the picture, which the photograph's pixels do not follow."""
    from semedit.tasks import steps

    moved = None if shift is None else typed_value(shift, tuple[float, ...], "shift")
    still = replace(place, detail=False)
    _edit(common, steps.placed(moved, rotate, common.options or ()), still)


def _transfer(common: Made, donor: str, region: str | None, place: Place) -> None:
    """Regions of one face for others."""
    from semedit.tasks import steps

    _edit(common, steps.transfer(donor, region, common.options or ()), place)


def _texture(
    common: Made, donor: str | None, seed: int | None, region: str | None, place: Place
) -> None:
    """Another texture for regions, in 3D."""
    from semedit.tasks import steps

    _edit(common, steps.texture(region, donor, seed, common.options or ()), place)


def _restyle(
    common: Made,
    options: dict[str, Any],
    reference: str | None,
    place: Place,
) -> None:
    """Edit a region; the default generator knows none, so that another stands in for it where
    none is asked for."""
    settings = [options, *(common.options or ())]

    def make(device: str, progress: Any) -> Any:
        from semedit.editors import Roi
        from semedit.options import build_method
        from semedit.tasks.restyle import Restyle

        generator = common.generator
        if generator == Made.generator and not typed("generator"):
            generator = Restyle.generator_name
            say("generator", generator)
        return Restyle(
            build_method(Roi, settings),
            reference,
            generator_name=generator,
            start=place.start,
            names=common.names or (),
            batch=common.batch,
            device=device,
            mark=common.mark,
            called=place.label,
            progress=progress,
        )

    run(common, "edit", make)


def _sweep(common: Made, strengths: str, settings: Sequence[Setting], place: Place) -> None:
    refuse("strips are made one by one", "batch")
    refuse("a strip shows every strength that is asked for", "max_drift")

    def make(device: str, progress: Any) -> Any:
        from semedit.editors import Direction
        from semedit.options import build_method
        from semedit.tasks.sweep import Sweep, strengths_of

        return Sweep(
            build_method(Direction, settings),
            strengths_of(strengths),
            generator_name=common.generator,
            start=place.start,
            names=common.names or (),
            device=device,
            mark=common.mark,
            detail=place.detail,
            label=place.label,
            progress=progress,
        )

    run(common, "edit", make)


def attr(
    common: Made,
    extra: dict[str, bool | None],
    method: Method = "fast",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of descent steps; default: the method's own.")
    ] = None,
    start: Start = None,
    label: Label = None,
    detail: Detail = True,
    max_drift: MaxDrift = None,
    into_photo: IntoPhoto = False,
) -> None:
    """Add attributes to faces or remove them, guided by a classifier."""
    wanted = {name.lstrip("_"): value for name, value in extra.items() if value is not None}
    if not wanted:
        raise OptionError("no attribute is given", "for example --smiling or --no-eyeglasses")
    from semedit.tasks.steps import attributes

    settings = [{"steps": steps}, *(common.options or ())]
    place = Place(start, label_of(label), detail, max_drift)
    with pasted_after(common, into_photo):
        _edit(common, attributes(wanted, method, settings), place)


def _edit(common: Made, step: Step, place: Place) -> None:
    """Do a step of each face's chain."""

    def make(device: str, progress: Any) -> Any:
        return step.called(place.label).task(
            generator_name=common.generator,
            start=place.start,
            names=common.names or (),
            batch=common.batch,
            device=device,
            mark=common.mark,
            detail=place.detail,
            max_drift=place.max_drift,
            progress=progress,
        )

    run(common, step.command, make)


def _attribute_flags() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name if name.isidentifier() else f"_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                bool | None,
                typer.Option(
                    f"{attribute_flag(name, True)}/{attribute_flag(name, False)}",
                    show_default=False,
                    rich_help_panel="Attributes",
                ),
            ],
        )
        for name in CELEBA
    ]
