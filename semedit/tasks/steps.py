"""Steps of a chain of edits, as the options of `semedit edit` and `semedit attr` say them.

Whoever edits makes a step here, and of the step a task: the command line, and the page of
`semedit paint`, which also shows the command that does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from semedit.batch.places import LONGEST_LABEL
from semedit.editors import Way, editors_of
from semedit.editors.transfer import whole_regions
from semedit.errors import OptionError
from semedit.faces.attributes import require_known
from semedit.generators import traits_of
from semedit.media.labels import attribute_flag
from semedit.options import Setting, build_method, pick_method
from semedit.tasks.edit import Edit


@dataclass(frozen=True)
class Step:
    """One step: an editor, its settings, and what it takes.

    Attributes:
        way: how it is asked for; name: of the editor, "": the first that suits the generator.
        settings: the editor's options, as build_method takes them.
        label: what the step is called; "": like the editor, or the direction. named: whether it
            is the user who calls it so.
        words: the options that say it on the command line.
        mask, wanted, donor: as in Edit.
    """

    way: Way
    name: str = ""
    settings: tuple[Setting, ...] = ()
    label: str = ""
    words: tuple[str, ...] = ()
    mask: Path | None = None
    wanted: Mapping[str, bool] = field(default_factory=dict)
    donor: str | None = None
    named: bool = False

    def called(self, label: str) -> Step:
        """The same under a label that the user gave; "": none."""
        return replace(self, label=label, named=True) if label else self

    @property
    def command(self) -> Literal["edit", "attr"]:
        """The command that makes it."""
        return "attr" if self.way == "attributes" else "edit"

    def task(self, generator_name: str = "heads-128", **run: Any) -> Edit:
        """The task that does it.

        Args:   run: fields of Edit that say on which faces, where.
        Raises: OptionError: no such editor, option or value, or an attribute that its classifier
                does not know.
        """
        known = editors_of(self.way)
        name = self.name or self._fitting(generator_name)
        method: Any = build_method(pick_method(known, name, f"editor by {self.way}"), self.settings)
        if self.wanted:
            require_known(self.wanted, method.classifier)
        called = f"{method.name}{method.strength:+g}" if self.way == "direction" else name
        return Edit(
            self.command,
            name,
            method,
            self.label or called,
            generator_name=generator_name,
            mask=self.mask,
            wanted=self.wanted,
            donor=self.donor,
            named=self.named,
            **run,
        )

    def _fitting(self, generator_name: str) -> str:
        """The first editor that suits a generator, else the first, which says what it lacks."""
        known = editors_of(self.way)
        if len(known) == 1:
            return next(iter(known))
        offered = traits_of(generator_name)
        fitting = [name for name, editor in known.items() if editor.requires <= offered]
        return (fitting or list(known))[0]


def by_mask(mask: Path, method: str | None = None, options: Sequence[Setting] = ()) -> Step:
    """A drawn label map, or a folder of them.

    Args: options: -o of the editor; so below.
    """
    words = ("--mask", str(mask), *_method(method), *_words(options))
    return Step("mask", method or "", tuple(options), words=words, mask=mask)


def along(
    direction: str,
    strength: float | None = None,
    region: str | None = None,
    layers: str | None = None,
    options: Sequence[Setting] = (),
) -> Step:
    """Along a direction."""
    own = {"strength": strength, "region": region, "layers": layers}
    given = {name: value for name, value in own.items() if value is not None}
    words = [word for name, value in given.items() for word in (f"--{name}", _text(value))]
    return Step(
        "direction",
        settings=({"name": direction, **given}, *options),
        words=("--direction", direction, *words, *_words(options)),
    )


def placed(
    shift: Sequence[float] | None, rotate: float | None, options: Sequence[Setting] = ()
) -> Step:
    """Shifted to the right and down by shares of the picture, and turned to the left by degrees.

    Raises: OptionError: no two shifts.
    """
    if shift is not None and len(shift) != 2:
        raise OptionError("a shift has two numbers", "write it as RIGHT,DOWN, like 0.1,-0.05")
    given = {} if shift is None else {"right": shift[0], "down": shift[1]}
    given |= {} if rotate is None else {"turn_deg": rotate}
    moved = () if shift is None else ("--shift", _text(shift))
    turned = () if rotate is None else ("--rotate", _text(rotate))
    words = (*moved, *turned, *_words(options))
    return Step("place", "", (given, *options), words=words)


def transfer(donor: str, regions: str | None, options: Sequence[Setting] = ()) -> Step:
    """Regions of another face.

    Raises: OptionError: an unknown region.
    """
    names = [name.strip() for name in (regions or "").split(",") if name.strip()]
    whole_regions(names)
    region = ("--region", ",".join(names)) if names else ()
    return Step(
        "transfer",
        "",
        ({"regions": names}, *options),
        f"{'+'.join(names)}-from-{donor.replace('/', '-')}"[:LONGEST_LABEL],
        ("--transfer-from", donor, *region, *_words(options)),
        donor=donor,
    )


def texture(
    region: str | None, donor: str | None, seed: int | None, options: Sequence[Setting] = ()
) -> Step:
    """Another texture for regions, of another face or a random one.

    Raises: OptionError: no region, or two textures.
    """
    if region is None:
        raise OptionError("no region is given", "say which region, for example --region hair,lips")
    if donor is not None and seed is not None:
        raise OptionError(
            "--texture-from and --texture-seed exclude each other", "give only one of them"
        )
    source = f"seed-{seed}" if donor is None else f"from-{Path(donor).stem}"
    given = ("--texture-seed", str(seed)) if donor is None else ("--texture-from", donor)
    return Step(
        "texture",
        "",
        ({"region": region}, *options, {"seed": seed}),
        f"{region.replace(',', '+').replace(' ', '')}-texture-{source}"[:LONGEST_LABEL],
        (*given, "--region", region, *_words(options)),
        donor=donor,
    )


def attributes(
    wanted: Mapping[str, bool], method: str | None = None, options: Sequence[Setting] = ()
) -> Step:
    """Attributes as a classifier sees them.

    Raises: OptionError: none is asked for.
    """
    if not wanted:
        raise OptionError("no attribute is given", "for example --smiling or --no-eyeglasses")
    flags = [attribute_flag(name, value) for name, value in wanted.items()]
    label = "+".join(flag.removeprefix("--") for flag in flags)[:LONGEST_LABEL]
    words = (*flags, *_method(method), *_words(options))
    return Step("attributes", method or "", tuple(options), label, words, wanted=dict(wanted))


def _method(name: str | None) -> tuple[str, ...]:
    return () if name is None else ("--method", name)


def _words(options: Sequence[Setting]) -> tuple[str, ...]:
    """The options as the command line has them."""
    texts = [
        text
        for option in options
        for text in ([option] if isinstance(option, str) else map("=".join, _texts(option)))
    ]
    return tuple(word for text in texts for word in ("-o", text))


def _texts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _text(value)) for name, value in values.items() if value is not None]


def _text(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return f"{value:.15g}" if isinstance(value, float) else str(value)
