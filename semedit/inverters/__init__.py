"""Inverters by name. Add one: write its file, add its line. The first that suits is the default."""

from semedit import weights
from semedit.generators.contract import Generator
from semedit.inverters.contract import Inverter
from semedit.inverters.hybrid import Hybrid
from semedit.inverters.lift import Lift
from semedit.inverters.optimize import Optimize
from semedit.inverters.pivotal import Pivotal

INVERTERS: dict[str, type[Inverter]] = {
    "lift": Lift,
    "hybrid": Hybrid,
    "pivotal": Pivotal,
    "optimize": Optimize,
}

__all__ = ["INVERTERS", "Hybrid", "Inverter", "Lift", "Optimize", "Pivotal", "usual", "usual_for"]


def usual(generator: str, traits: frozenset[str]) -> str:
    """The name of the inverter that is used where none is named: the first one that suits the
    generator and whose weights are here.

    Args: generator: its name; traits: its traits.
    """
    return next(
        name
        for name, kind in INVERTERS.items()
        if kind.requires <= traits
        and all(weights.on_disk(file) for file in kind().weights_of(generator))
    )


def usual_for(generator: Generator) -> Inverter:
    """That inverter, with the options it has where none are given."""
    return INVERTERS[usual(generator.name, generator.traits)]()
