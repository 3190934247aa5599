"""Inverters by name. Add one: write its file, add its line."""

from semedit.inverters.contract import Inverter
from semedit.inverters.hybrid import Hybrid
from semedit.inverters.lift import Lift
from semedit.inverters.optimize import Optimize
from semedit.inverters.pivotal import Pivotal

INVERTERS: dict[str, type[Inverter]] = {
    "hybrid": Hybrid,
    "lift": Lift,
    "optimize": Optimize,
    "pivotal": Pivotal,
}

__all__ = ["INVERTERS", "Hybrid", "Inverter", "Lift", "Optimize", "Pivotal"]
