"""JSON as the standard has it: what is no finite number is null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, **how: Any) -> str:
    """`json.dumps` whose text every reader takes: NaN and infinities become null."""
    return json.dumps(finite(value), allow_nan=False, **how)


def finite(value: Any) -> Any:
    """A value with None for every float in it that is not finite."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
