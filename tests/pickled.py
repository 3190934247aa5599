"""Pickles as NVIDIA's projects write them: module trees that carry their source with them."""

from __future__ import annotations

import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

LINE = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8


FILTER = LINE[:, None] * LINE


SOURCE = """
import builtins
builtins.semedit_tripwire.append("the source was run")

class Module:
    def __setstate__(self, state):
        builtins.semedit_tripwire.append("an object was made")
"""


class EasyDict(dict):
    """Pickled as dnnlib.util.EasyDict."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


class Persistent:
    """Pickled as the objects that carry their source with them."""

    def __init__(self, name: str, state: dict[str, Any]) -> None:
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE,
            "class_name": name,
            "state": state,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj  # type: ignore
        return rebuild, (self.meta,)


def tripwire(meta: Any) -> Any:
    """What the real library does: run the source."""
    namespace: dict[str, Any] = {}
    exec(meta["module_src"], namespace)
    return namespace["Module"]()


def module(name: str, tensors: dict[str, Tensor], **facts: Any) -> Persistent:
    """A module tree that holds tensors of dotted names."""
    own = {key: value for key, value in tensors.items() if "." not in key}
    buffers = ("resample_filter", "noise_const", "w_avg")
    children = OrderedDict()
    for child in dict.fromkeys(key.split(".")[0] for key in tensors if "." in key):
        inner = {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(child + ".")}
        more = {"conv_clamp": 256.0} if child.startswith(("conv", "torgb")) else {}
        children[child] = module(f"Some{child.capitalize()}", inner, **more)
    state = {
        "training": False,
        "_parameters": OrderedDict(
            (k, nn.Parameter(v)) for k, v in own.items() if k not in buffers
        ),
        "_buffers": OrderedDict((k, v) for k, v in own.items() if k in buffers),
        "_non_persistent_buffers_set": set(),
        "_modules": children,
        **facts,
    }
    return Persistent(name, state)


@pytest.fixture(name="nvidia")
def nvidia_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """NVIDIA's modules by name, which run the source they are given; what the tripwire caught."""
    import builtins

    caught: list[str] = []
    monkeypatch.setattr(builtins, "semedit_tripwire", caught, raising=False)
    tripwire.__module__ = "torch_utils.persistence"
    tripwire.__qualname__ = tripwire.__name__ = "_reconstruct_persistent_obj"
    for name, members in {
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": EasyDict},
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": tripwire},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    yield caught
