"""Options of methods: read from fields, set from text, checked against traits."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar, Literal

import pytest

from semedit.errors import OptionError, TraitError
from semedit.options import (
    build_method,
    check_traits,
    method_rows,
    options_of,
    parameters_of,
    pick_method,
)


@dataclass(frozen=True)
class Base:
    """Base of an example."""

    requires: ClassVar = frozenset({"ws"})
    steps: int = 20  # Adam updates


@dataclass(frozen=True)
class Example(Base):
    """Do an example.

    More text.
    """

    requires: ClassVar = frozenset({"ws", "camera"})
    lr: float = 0.1  # per update
    space: Literal["w", "ws"] = "ws"  # which code
    stop: float | None = None  # decibels
    weights: tuple[float, ...] = (1.0, 2.0)
    verbose: bool = field(default=False, metadata={"help": "say more"})

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("steps must be positive")


def test_options_have_types_defaults_and_comments():
    found = {option.name: option for option in options_of(Example)}
    assert list(found) == ["steps", "lr", "space", "stop", "weights", "verbose"]
    assert found["steps"].help == "Adam updates"
    assert found["lr"].kind is float and found["lr"].default == 0.1
    assert found["verbose"].help == "say more"
    assert found["space"].kind_name == "w|ws"
    assert found["stop"].kind_name == "float or none"


def test_settings_are_typed():
    made = build_method(
        Example,
        ["steps=3", "lr=1e-2", "space=w", "stop=26", "weights=1,0.5,2", "verbose=yes"],
    )
    assert made == Example(3, 0.01, "w", 26.0, (1.0, 0.5, 2.0), True)
    assert build_method(Example, ["stop=none"], stop=3.0).stop is None
    assert parameters_of(made)["weights"] == (1.0, 0.5, 2.0)


def test_values_with_types_stand_beside_texts_and_later_ones_win():
    typed = {"steps": 3, "lr": 1, "stop": None, "weights": [1, 0.5], "verbose": True}
    made = build_method(Example, [typed, "lr=0.5", {"space": "w", "stop": "26"}])
    assert made == Example(3, 0.5, "w", 26.0, (1.0, 0.5), True)
    assert type(build_method(Example, {"lr": 1}).lr) is float
    assert build_method(Example, {"steps": "7"}).steps == 7  # a text is read, as behind -o


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 2.5),
        ("steps", 60.0),
        ("steps", True),
        ("steps", [1]),
        ("steps", "many"),
        ("lr", False),
        ("lr", float("inf")),
        ("space", 1),
        ("stop", [2.0]),
        ("weights", 1.0),
        ("weights", [1, "x"]),
        ("verbose", 1),
        ("verbose", {"a": 1}),
    ],
)
def test_values_of_another_type_are_told_by_name(name, value):
    with pytest.raises(OptionError, match=rf"^{name}=.*not a value of type"):
        build_method(Example, {name: value})


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("stepps=3", "did you mean steps"),
        ("steps", "name=value"),
        ("steps=3.5", "int"),
        ("lr=nan", "float"),
        ("lr=x", "float"),
        ("space=z", "w|ws"),
        ("verbose=maybe", "bool"),
        ("stop=fast", "float or none"),
        ("steps=0", "positive"),
    ],
)
def test_bad_settings_are_refused(setting, says):
    with pytest.raises(OptionError, match=says.replace("|", r"\|")):
        build_method(Example, [setting])


def test_required_options_must_be_given():
    @dataclass(frozen=True)
    class Needs:
        """Needs a mask."""

        mask: str  # a path

    with pytest.raises(OptionError, match="mask"):
        build_method(Needs)
    assert build_method(Needs, ["mask=a=b"]).mask == "a=b"


def test_unknown_names_bring_suggestions():
    with pytest.raises(OptionError, match="did you mean pivotal"):
        pick_method({"pivotal": Example}, "pivotl", "inverter")
    with pytest.raises(OptionError, match="there is pivotal"):
        pick_method({"pivotal": Example}, "zzz", "inverter")


def test_a_misfit_names_generators_that_fit():
    flat = SimpleNamespace(name="flat", traits=frozenset({"ws"}))
    deep = SimpleNamespace(name="deep", traits=frozenset({"ws", "camera", "seg"}))
    known = {"flat": flat.traits, "deep": deep.traits}
    check_traits("example", Example(), deep, known)
    with pytest.raises(TraitError, match=r"example needs camera, which flat lacks.*deep"):
        check_traits("example", Example(), flat, known)


def test_table_rows():
    (row,) = method_rows({"example": Example})
    assert (row.name, row.summary, row.requires) == ("example", "Do an example.", ("camera", "ws"))


def test_a_preset_sets_more_than_its_sizes_and_settings_win():
    from semedit.trainers import TRAINERS

    kind = TRAINERS["ide3d"]
    paper = build_method(kind, ["preset=paper", "batch_size=8"], device="cpu")
    assert (paper.regression, paper.anchor, paper.batch_size) == (0.0, 0.0, 8)
    heads = build_method(kind, ["preset=heads"])
    assert heads == kind()
