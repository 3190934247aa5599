"""align, parse, pose, invert, edit, attr, turntable: the chain over one workspace."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from semedit.cli import fields
from semedit.cli.common import Common, Drawn, Made, Mark, OnFaces, command, run, say
from semedit.errors import OptionError
from semedit.images import ATTRIBUTES, MAX_PIXELS

Method = Annotated[str, typer.Option("--method", "-m", help="By name; see `semedit methods`.")]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from `latents` or a step, like 01-smiling; else the newest. With --mask: "
        "`none` makes a face from the map alone.",
    ),
]
Backend = Annotated[str, typer.Option(help="auto or a back-end's name.")]
MASK_METHODS = ("mask", "canonical")  # editors that `edit --mask` offers
REGION: dict[str, Any] = {"rich_help_panel": "Regions"}  # of options


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "align")(align)
    command(app, "parse")(parse)
    command(app, "pose")(pose)
    command(app, "invert")(invert)
    command(app, "edit")(edit)
    command(app, "attr", extra=_attribute_flags())(attr)
    command(app, "turntable")(turntable)


def align(
    common: Common,
    inputs: Annotated[list[str], typer.Argument(help="Photographs, folders or globs.")],
    size: Annotated[int, typer.Option(min=64, max=4096, help="Pixels a side of crops.")] = 256,
    detect: Annotated[
        str, typer.Option(help="auto, builtin, facexlib or face-alignment.")
    ] = "auto",
    landmarks: Annotated[str, typer.Option(help="auto, builtin or face-alignment.")] = "auto",
    parser: Annotated[str, typer.Option(help="auto, builtin, bisenet or parsenet.")] = "auto",
    poser: Annotated[str, typer.Option(help="auto, builtin or facexlib.")] = "auto",
    parse: Annotated[bool, typer.Option("--parse/--no-parse", help="Make label maps.")] = True,
    pose: Annotated[bool, typer.Option("--pose/--no-pose", help="Estimate cameras.")] = True,
    faces: Annotated[
        Literal["largest", "all"], typer.Option(help="Which faces of a photograph.")
    ] = "largest",
    min_face: Annotated[int, typer.Option(help="Smallest face, pixels.")] = 32,
    max_pixels: Annotated[int, typer.Option(help="Largest photograph.")] = MAX_PIXELS,
    on_no_face: Annotated[
        Literal["skip", "fail"], typer.Option(help="A photograph without a face.")
    ] = "skip",
) -> None:
    """Find faces in photographs, cut them out upright, parse them, estimate their cameras."""

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.align import Align

        task = Align(
            inputs,
            size=size,
            detect=detect,
            landmarks=landmarks,
            parse=parser if parse else "none",
            pose=poser if pose else "none",
            faces=faces,
            min_face=min_face,
            max_pixels=max_pixels,
            on_no_face=on_no_face,
            device=device,
        )
        say("back-ends", ", ".join(f"{step} {name}" for step, name in task.backends.items()))
        return task

    run(common, "align", make, new=True)


def parse(common: OnFaces, backend: Backend = "auto") -> None:
    """Make the label maps of aligned faces anew."""
    _describe(common, "parse", backend)


def pose(common: OnFaces, backend: Backend = "auto") -> None:
    """Estimate the cameras of aligned faces anew."""
    _describe(common, "pose", backend)


def _describe(common: OnFaces, what: Literal["parse", "pose"], backend: str) -> None:
    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.align import Describe

        return Describe(what, common.names or (), backend=backend, device=device)

    run(common, what, make)


def invert(
    common: Made,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="By name; default: hybrid where the generator has an encoder, else pivotal.",
        ),
    ] = None,
    coarse: Annotated[
        bool,
        typer.Option("--coarse", help="First steps at 256 pixels; for large generators."),
    ] = False,
) -> None:
    """Find the codes of aligned faces: hybrid, optimize or pivotal inversion."""

    def make(device: str, progress: Any) -> Any:
        from semedit import methods
        from semedit.generators import traits_of
        from semedit.inverters import INVERTERS
        from semedit.tasks.invert import Invert

        name = method or ("hybrid" if "encode" in traits_of(common.generator) else "pivotal")
        kind = methods.pick(INVERTERS, name, "inverter")
        settings = [*(("coarse=256",) if coarse else ()), *(common.options or ())]
        return Invert(
            name,
            methods.build(kind, settings),
            generator_name=common.generator,
            names=common.names or (),
            seed=common.seed,
            batch=common.batch,
            device=device,
            mark=common.mark,
            progress=progress,
        )

    run(common, "invert", make)


def edit(
    common: Made,
    mask: Annotated[
        Path | None,
        typer.Option(help="An edited label map, or a folder of them named like the faces."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="For --mask: mask, or canonical, in one pass."),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="Move along this direction; see `semedit directions list`.")
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            help="Standard deviations; FROM:TO:COUNT, like -3:3:7, makes a strip of so many."
        ),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers that the direction moves, like 0-7; else all.")
    ] = None,
    transfer_from: Annotated[
        str | None, typer.Option(help="Give faces the regions of this face.", **REGION)
    ] = None,
    texture_from: Annotated[
        str | None,
        typer.Option(
            help="Give regions the texture of this face: by name, latent or picture.", **REGION
        ),
    ] = None,
    texture_seed: Annotated[
        int | None, typer.Option(help="Give regions a random texture, of this number.", **REGION)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            help="hair, skin, nose, eyes or lips: edit it in one pass, without inversion. With "
            "--transfer-from and --texture-...: regions like hair,lips. With --direction: the "
            "regions whose codes move, of generators that have some.",
            **REGION,
        ),
    ] = None,
    style_noise: Annotated[
        float | None, typer.Option(help="Give it another style: strength of the noise.", **REGION)
    ] = None,
    style_from: Annotated[
        str | None,
        typer.Option(help="Give it the style of this face, by name or picture.", **REGION),
    ] = None,
    structure_noise: Annotated[
        float | None, typer.Option(help="Give it another shape: strength of the noise.", **REGION)
    ] = None,
    as_published: Annotated[
        bool, typer.Option("--as-published", help="Smooth the whole picture, too.", **REGION)
    ] = False,
    start: From = None,
) -> None:
    """Edit faces by a label map that was drawn over, along a direction, by regions of another
    face, or a region's style.

    A strip of strengths is a picture to look at, sweeps/NAME/DIRECTION.png, and no step of the
    face's chain of edits. Edits of a region in one pass need weights of `semedit train l2sae`, or
    imported ones: -w NAME, else heads-l2sae-128.
    """
    if transfer_from is not None:
        if mask is not None or direction is not None:
            raise OptionError("say one way to edit", "--transfer-from takes --region alone")
        _transfer(common, transfer_from, region, start)
        return
    if texture_from is not None or texture_seed is not None:
        _texture(common, texture_from, texture_seed, region, start)
        return
    styled = (style_noise, style_from, structure_noise, as_published or None)
    if region is None and any(value is not None for value in styled):
        raise OptionError("which region?", "give --region hair, skin, nose, eyes or lips")
    if [mask, region if direction is None else direction].count(None) != 1:
        raise OptionError(
            "say how to edit",
            "give --mask FILE|DIR, --direction NAME, --region NAME, or --transfer-from FACE",
        )
    if region is not None and direction is None:
        noise = {"style_noise": style_noise, "structure_noise": structure_noise}
        _restyle(common, {"region": region, **noise}, as_published, style_from, start)
        return
    if mask is not None and not mask.exists():
        raise OptionError(f"no mask at {mask}")
    if method is not None and (mask is None or method not in MASK_METHODS):
        raise OptionError(f"no method {method!r}", f"--mask takes {' or '.join(MASK_METHODS)}")
    if mask is not None and start == "none":
        fields.draw(common, mask)
        return
    settings = list(common.options or ())
    if direction is not None:
        own = [] if region is None else [f"region={region}"]
        settings = [f"name={direction}", *own, *settings]
    if layers is not None:
        settings = [f"layers={layers}", *settings]
    if strength is not None and ":" in strength:
        if direction is None:
            raise OptionError("a strip of strengths needs a direction", "give --direction NAME")
        _sweep(common, strength, settings, start)
        return
    if strength is not None:
        settings = [f"strength={strength}", *settings]
    name = (method or "mask") if direction is None else "direction"
    _edit(common, "edit", name, settings, start, mask=mask)


def _transfer(common: Made, donor: str, region: str | None, start: str | None) -> None:
    """Regions of one face for others, by the first editor that suits the generator."""
    from semedit.editors import EDITORS, TRANSFER_EDITORS
    from semedit.editors.transfer import whole_regions
    from semedit.generators import traits_of

    names = [name.strip() for name in (region or "").split(",") if name.strip()]
    whole_regions(names)
    offered = traits_of(common.generator)
    kinds: dict[str, Any] = {name: EDITORS[name] for name in TRANSFER_EDITORS}
    fitting = [name for name, kind in kinds.items() if kind.requires <= offered]
    name = (fitting or TRANSFER_EDITORS)[0]  # one that does not fit says what it lacks
    settings = [f"regions={','.join(names)}", *(common.options or ())]
    label = f"{'+'.join(names)}-from-{donor.replace('/', '-')}"[:80]
    _edit(common, "edit", name, settings, start, label=label, donor=donor)


def _texture(
    common: Made, donor: str | None, seed: int | None, region: str | None, start: str | None
) -> None:
    """Another texture for regions, in 3D."""
    if region is None:
        raise OptionError("which region?", "give --region hair,lips or the like")
    if donor is not None and seed is not None:
        raise OptionError("say one texture", "give --texture-from or --texture-seed")
    settings = [f"region={region}", *(common.options or ())]
    settings += [] if seed is None else [f"seed={seed}"]
    source = f"seed-{seed}" if donor is None else f"from-{Path(donor).stem}"
    label = f"{region.replace(',', '+').replace(' ', '')}-texture-{source}"[:80]
    _edit(common, "edit", "texture", settings, start, label=label, donor=donor)


def _restyle(
    common: Made,
    options: dict[str, Any],
    as_published: bool,
    reference: str | None,
    start: str | None,
) -> None:
    """Edit a region; the default generator knows none, so that another stands in for it."""
    options |= {"as_published": as_published, "seed": common.seed}
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    settings = [*given, *(common.options or ())]

    def make(device: str, progress: Any) -> Any:
        from semedit import methods
        from semedit.editors import Roi
        from semedit.tasks.restyle import Restyle

        own = {} if common.generator == "heads-128" else {"generator_name": common.generator}
        return Restyle(
            methods.build(Roi, settings),
            reference,
            **own,
            start=start,
            names=common.names or (),
            batch=common.batch,
            device=device,
            mark=common.mark,
            progress=progress,
        )

    run(common, "edit", make)


def _sweep(common: Made, strengths: str, settings: Sequence[str], start: str | None) -> None:
    def make(device: str, progress: Any) -> Any:
        from semedit import methods
        from semedit.editors import Direction
        from semedit.tasks.sweep import Sweep, strengths_of

        return Sweep(
            methods.build(Direction, settings),
            strengths_of(strengths),
            generator_name=common.generator,
            start=start,
            names=common.names or (),
            device=device,
            mark=common.mark,
            progress=progress,
        )

    run(common, "edit", make)


def attr(
    common: Made,
    extra: dict[str, bool | None],
    method: Method = "fast",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of the descent; default: the method's.")
    ] = None,
    start: From = None,
) -> None:
    """Give faces attributes, or take them away, as a classifier sees them."""
    wanted = {name: value for name, value in extra.items() if value is not None}
    if not wanted:
        raise OptionError("say which attributes", "for example --smiling or --no-eyeglasses")
    words = [_flag(name, value).removeprefix("--") for name, value in wanted.items()]
    settings = [*([] if steps is None else [f"steps={steps}"]), *(common.options or ())]
    _edit(common, "attr", method, settings, start, label="+".join(words)[:80], wanted=wanted)


def _edit(
    common: Made,
    command: Literal["edit", "attr"],
    name: str,
    settings: Sequence[str],
    start: str | None,
    label: str | None = None,
    **given: Any,
) -> None:
    """Run an editor; without a label its steps are called after the editor or the direction."""

    def make(device: str, progress: Any) -> Any:
        from semedit import methods
        from semedit.editors import ATTRIBUTE_EDITORS, EDITORS, FIELD_EDITORS
        from semedit.tasks.edit import Edit

        known = {**EDITORS, **FIELD_EDITORS}
        fit = {k: v for k, v in known.items() if command == "edit" or k in ATTRIBUTE_EDITORS}
        method: Any = methods.build(methods.pick(fit, name, "attribute editor"), settings)
        called = f"{method.name}{method.strength:+g}" if name == "direction" else name
        return Edit(
            command,
            name,
            method,
            label or called,
            generator_name=common.generator,
            start=start,
            names=common.names or (),
            batch=common.batch,
            device=device,
            mark=common.mark,
            progress=progress,
            **given,
        )

    run(common, command, make)


def _flag(name: str, value: bool) -> str:
    """The flag that asks for an attribute or against it: smiling -> --smiling, --no-smiling;
    no_beard -> --no-beard, --beard."""
    dashed = name.replace("_", "-")
    if value:
        return f"--{dashed}"
    return f"--{dashed.removeprefix('no-')}" if dashed.startswith("no-") else f"--no-{dashed}"


def _attribute_flags() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                bool | None,
                typer.Option(
                    f"{_flag(name, True)}/{_flag(name, False)}",
                    show_default=False,
                    rich_help_panel="Attributes",
                ),
            ],
        )
        for name in ATTRIBUTES
    ]


def turntable(
    common: Drawn,
    frames: Annotated[int, typer.Option(min=2, help="Frames of the loop.")] = 72,
    format: Annotated[Literal["gif", "webp", "mp4"], typer.Option(help="File format.")] = "gif",
    yaw_deg: Annotated[float, typer.Option(help="To either side, degrees.")] = 30.0,
    pitch_deg: Annotated[float, typer.Option(help="Up and down, degrees.")] = 8.0,
    path: Annotated[
        Literal["swing", "orbit"], typer.Option(help="There and back, or once around.")
    ] = "swing",
    fps: Annotated[float, typer.Option(min=1, max=60, help="Frames a second.")] = 24.0,
    seg: Annotated[bool, typer.Option("--seg", help="Put the label map beside.")] = False,
    start: From = None,
    mark: Mark = True,
) -> None:
    """Render a seamless loop of each face turning."""

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.turntable import Turntable

        task = Turntable(
            frames=frames,
            format=format,
            yaw_deg=yaw_deg,
            pitch_deg=pitch_deg,
            path=path,
            fps=fps,
            seg=seg,
            generator_name=common.generator,
            start=start,
            names=common.names or (),
            device=device,
            mark=mark,
            progress=progress,
        )
        if task.note:
            say("note", task.note)
        return task

    run(common, "turntable", make)
