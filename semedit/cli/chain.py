"""The chain over one workspace: align, parse, pose, invert, the edits, turntable."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from semedit.cli import edits
from semedit.cli.common import (
    Common,
    Drawn,
    Label,
    Made,
    Mark,
    OnFaces,
    Start,
    command,
    label_of,
    refuse,
    run,
    say,
)
from semedit.media.photographs import MAX_PIXELS

PARSE = ("auto", "builtin", "bisenet", "parsenet", "facexlib")
POSE = ("auto", "builtin", "facexlib")
BOOLEANS = {"true": "auto", "1": "auto", "false": "none", "0": "none"}  # of earlier versions


def backend(text: str, *known: str) -> Any:
    """A flag that takes the name of a back-end, which names those that are known."""

    def read(given: Any) -> str:
        name = BOOLEANS.get(str(given).lower(), str(given))
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}")
        return name

    said = f"{text}: {', '.join(known[:-1])} or {known[-1]}."
    return typer.Option(parser=read, metavar="NAME", help=said)


MAPS, CAMERAS = "Back-end that makes label maps", "Back-end that estimates cameras"
Before = Annotated[
    str | None, typer.Option(hidden=True, help="Earlier name of the flag.")
]  # a flag's name in earlier versions


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, "align")(align)
    command(app, "parse")(parse)
    command(app, "pose")(pose)
    command(app, "invert")(invert)
    edits.register(app)
    command(app, "turntable")(turntable)


def align(
    common: Common,
    inputs: Annotated[list[str], typer.Argument(help="Photographs, folders or globs.")],
    size: Annotated[
        int, typer.Option(min=64, max=4096, help="Side of the crops, in pixels.")
    ] = 256,
    detect: Annotated[
        str,
        typer.Option(help="Back-end that finds faces: auto, builtin, facexlib or face-alignment."),
    ] = "auto",
    landmarks: Annotated[
        str,
        typer.Option(help="Back-end that finds landmarks: auto, builtin or face-alignment."),
    ] = "auto",
    parse: Annotated[str, backend(MAPS, *PARSE, "none")] = "auto",
    pose: Annotated[str, backend(CAMERAS, *POSE, "none")] = "auto",
    faces: Annotated[
        Literal["largest", "all"], typer.Option(help="Faces to keep of each photograph.")
    ] = "largest",
    min_face: Annotated[int, typer.Option(help="Smallest face to keep, in pixels.")] = 32,
    max_pixels: Annotated[
        int, typer.Option(help="Largest photograph to read, in pixels.")
    ] = MAX_PIXELS,
    on_no_face: Annotated[
        Literal["skip", "fail"], typer.Option(help="What to do with a photograph without a face.")
    ] = "skip",
    parser: Before = None,
    poser: Before = None,
    no_parse: Annotated[
        bool | None, typer.Option("--no-parse", hidden=True, help="Earlier name of --parse none.")
    ] = None,
    no_pose: Annotated[
        bool | None, typer.Option("--no-pose", hidden=True, help="Earlier name of --pose none.")
    ] = None,
) -> None:
    """Find faces in photographs, cut them out upright, parse them, estimate their cameras."""

    def make(device: str, progress: Any) -> Any:
        from semedit.tasks.align import Align

        task = Align(
            inputs,
            size=size,
            detect=detect,
            landmarks=landmarks,
            parse=_wanted(parse, parser, no_parse),
            pose=_wanted(pose, poser, no_pose),
            faces=faces,
            min_face=min_face,
            max_pixels=max_pixels,
            on_no_face=on_no_face,
            device=device,
        )
        say("back-ends", ", ".join(f"{step} {name}" for step, name in task.backends.items()))
        return task

    run(common, "align", make, new=True)


def _wanted(name: str, before: str | None, no: bool | None) -> str:
    """The back-end that is asked for, be it by flags of earlier versions."""
    return "none" if no or name == "none" else before or name


def parse(
    common: OnFaces, parse: Annotated[str, backend(MAPS, *PARSE)] = "auto", backend: Before = None
) -> None:
    """Make the label maps of aligned faces again, say with another back-end."""
    _describe(common, "parse", backend or parse)


def pose(
    common: OnFaces, pose: Annotated[str, backend(CAMERAS, *POSE)] = "auto", backend: Before = None
) -> None:
    """Estimate the cameras of aligned faces again, say with another back-end."""
    _describe(common, "pose", backend or pose)


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
            help="Name of the method; default: the first of lift, hybrid and pivotal that suits.",
        ),
    ] = None,
    coarse: Annotated[
        bool,
        typer.Option(
            "--coarse", help="Take the first steps at 256 pixels: faster for large generators."
        ),
    ] = False,
    label: Label = None,
) -> None:
    """Find the codes of aligned faces: lift, hybrid, pivotal or optimize.

    An inversion with a label stands beside the one without; --from LABEL starts from it.
    """
    called = label_of(label)

    def make(device: str, progress: Any) -> Any:
        from semedit.generators import traits_of
        from semedit.inverters import INVERTERS, usual
        from semedit.options import build_method, pick_method
        from semedit.tasks.invert import Invert
        from semedit.weights import resolve

        name = method or usual(resolve(common.generator).stem, traits_of(common.generator))
        kind = pick_method(INVERTERS, name, "inverter")
        settings = [{"coarse": 256 if coarse else None}, *(common.options or ())]
        return Invert(
            name,
            build_method(kind, settings),
            generator_name=common.generator,
            names=common.names or (),
            batch=common.batch,
            device=device,
            mark=common.mark,
            label=called,
            progress=progress,
        )

    run(common, "invert", make)


def turntable(
    common: Drawn,
    frames: Annotated[int, typer.Option(min=2, help="Number of frames in the loop.")] = 72,
    format: Annotated[Literal["gif", "webp", "mp4"], typer.Option(help="File format.")] = "gif",
    yaw_deg: Annotated[float, typer.Option(help="Degrees to either side.")] = 30.0,
    pitch_deg: Annotated[float, typer.Option(help="Degrees up and down.")] = 8.0,
    path: Annotated[
        Literal["swing", "orbit"], typer.Option(help="Swing to and fro, or go once around.")
    ] = "swing",
    fps: Annotated[float, typer.Option(min=1, max=60, help="Frames per second.")] = 24.0,
    seg: Annotated[bool, typer.Option("--seg", help="Show the label map beside the face.")] = False,
    start: Start = None,
    label: Label = None,
    mark: Mark = True,
) -> None:
    """Render a seamless loop of each face turning."""
    called = label_of(label)
    if path == "orbit":
        refuse("an orbit goes all the way around", "yaw_deg")

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
            label=called,
            progress=progress,
        )
        if task.note:
            say("note", task.note)
        return task

    run(common, "turntable", make)
