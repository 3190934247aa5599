"""Steps of a chain of edits, as the options of `semedit edit` and `semedit attr` say them.

Whoever edits makes a step here, and of the step a task: the command line, and the page of
`semedit paint`, which also shows the command that does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from semedit.editors import ATTRIBUTE_EDITORS, EDITORS, FIELD_EDITORS, TRANSFER_EDITORS
from semedit.editors.transfer import whole_regions
from semedit.errors import OptionError
from semedit.generators import traits_of
from semedit.media.photographs import attribute_flag
from semedit.options import build_method, pick_method
from semedit.tasks.edit import Edit

LONGEST_LABEL = 80  # characters of what a step is called


@dataclass(frozen=True)
class Step:
    """One step: an editor, its settings, and what it takes.

    Attributes:
        name: of the editor; settings: its options, name=value.
        label: what the step is called; "": like the editor, or the direction.
        words: the options that say it on the command line.
        mask, wanted, donor: as in Edit.
    """

    command: Literal["edit", "attr"]
    name: str
    settings: tuple[str, ...] = ()
    label: str = ""
    words: tuple[str, ...] = ()
    mask: Path | None = None
    wanted: Mapping[str, bool] = field(default_factory=dict)
    donor: str | None = None

    def task(self, **run: Any) -> Edit:
        """The task that does it.

        Args:   run: fields of Edit that say on which faces, by which generator, where.
        Raises: OptionError: no such editor, option or value.
        """
        known = {**EDITORS, **FIELD_EDITORS}
        fit = {k: v for k, v in known.items() if self.command == "edit" or k in ATTRIBUTE_EDITORS}
        kind: Any = pick_method(fit, self.name, "attribute editor")
        method: Any = build_method(kind, self.settings)
        called = f"{method.name}{method.strength:+g}" if self.name == "direction" else self.name
        return Edit(
            self.command,
            self.name,
            method,
            self.label or called,
            mask=self.mask,
            wanted=self.wanted,
            donor=self.donor,
            **run,
        )


def by_mask(mask: Path, method: str = "mask", options: Sequence[str] = ()) -> Step:
    """A drawn label map, or a folder of them.

    Args: options: -o of the editor; so below.
    """
    words = ("--mask", str(mask), "--method", method, *_words(options))
    return Step("edit", method, tuple(options), words=words, mask=mask)


def along(
    direction: str,
    strength: str | None = None,
    region: str | None = None,
    layers: str | None = None,
    options: Sequence[str] = (),
) -> Step:
    """Along a direction."""
    own = {"strength": strength, "region": region, "layers": layers}
    given = {name: value for name, value in own.items() if value is not None}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    settings = [f"{name}={value}" for name, value in ({"name": direction} | given).items()]
    return Step(
        "edit",
        "direction",
        (*settings, *options),
        words=("--direction", direction, *words, *_words(options)),
    )


def transfer(
    donor: str, regions: str | None, generator: str = "heads-128", options: Sequence[str] = ()
) -> Step:
    """Regions of another face, by the first editor that suits the generator.

    Raises: OptionError: an unknown region.
    """
    names = [name.strip() for name in (regions or "").split(",") if name.strip()]
    whole_regions(names)
    offered = traits_of(generator)
    kinds: dict[str, Any] = {name: EDITORS[name] for name in TRANSFER_EDITORS}
    fitting = [name for name, kind in kinds.items() if kind.requires <= offered]
    name = (fitting or TRANSFER_EDITORS)[0]  # one that does not fit says what it lacks
    region = ("--region", ",".join(names)) if names else ()
    return Step(
        "edit",
        name,
        (f"regions={','.join(names)}", *options),
        f"{'+'.join(names)}-from-{donor.replace('/', '-')}"[:LONGEST_LABEL],
        ("--transfer-from", donor, *region, *_words(options)),
        donor=donor,
    )


def texture(
    region: str | None, donor: str | None, seed: int | None, options: Sequence[str] = ()
) -> Step:
    """Another texture for regions, of another face or a random one.

    Raises: OptionError: no region, or two textures.
    """
    if region is None:
        raise OptionError("which region?", "give --region hair,lips or the like")
    if donor is not None and seed is not None:
        raise OptionError("say one texture", "give --texture-from or --texture-seed")
    settings = [f"region={region}", *options]
    settings += [] if seed is None else [f"seed={seed}"]
    source = f"seed-{seed}" if donor is None else f"from-{Path(donor).stem}"
    given = ("--texture-seed", str(seed)) if donor is None else ("--texture-from", donor)
    return Step(
        "edit",
        "texture",
        tuple(settings),
        f"{region.replace(',', '+').replace(' ', '')}-texture-{source}"[:LONGEST_LABEL],
        (*given, "--region", region, *_words(options)),
        donor=donor,
    )


def attributes(
    wanted: Mapping[str, bool], method: str = "fast", options: Sequence[str] = ()
) -> Step:
    """Attributes as a classifier sees them.

    Raises: OptionError: none is asked for.
    """
    if not wanted:
        raise OptionError("say which attributes", "for example --smiling or --no-eyeglasses")
    flags = [attribute_flag(name, value) for name, value in wanted.items()]
    label = "+".join(flag.removeprefix("--") for flag in flags)[:LONGEST_LABEL]
    words = (*flags, "--method", method, *_words(options))
    return Step("attr", method, tuple(options), label, words, wanted=dict(wanted))


def _words(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for option in options for word in ("-o", option))
