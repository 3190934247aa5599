"""What cosmic-ray's own operators lack for losses: terms, operands, arguments, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import parso
from cosmic_ray.operators.operator import Example, Operator

Place = tuple[tuple[int, int], tuple[int, int]]
SUMS = ("arith_expr", "term")  # of parso: a + b - c, a * b / c
RENAMED = {  # calls whose name says which way or how much
    "minimum": "maximum",
    "maximum": "minimum",
    "min": "max",
    "max": "min",
    "amin": "amax",
    "amax": "amin",
    "argmin": "argmax",
    "argmax": "argmin",
    "mean": "sum",
    "square": "abs",
    "abs": "square",
    "sin": "cos",
    "cos": "sin",
    "no_grad": "enable_grad",
    "enable_grad": "no_grad",
}
ALIKE = ("transpose", "maximum", "minimum", "max", "min")  # whose arguments may change places


def _copied(code: str, like: Any) -> Any:
    """An expression in place of `like`, with the space before it."""
    first = like.get_first_leaf()
    node = parso.parse(f"({code})").children[0]
    node.get_first_leaf().prefix = first.prefix
    return node


def _text(node: Any) -> str:
    return node.get_code(include_prefix=False)


class _Whole(Operator):
    """Replaces a node by text; `_ways` says what may stand there instead."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        for _ in self._ways(node):
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        return _copied(self._ways(node)[index], node)

    def _ways(self, node: Any) -> list[str]:
        raise NotImplementedError


class DropTerm(_Whole):
    """a + b -> a, b; also of differences, products and quotients."""

    def _ways(self, node: Any) -> list[str]:
        if node.type not in SUMS:
            return []
        parts = [_text(child) for child in node.children]
        found = []
        for i in range(0, len(parts), 2):
            left = parts[: i - 1] + parts[i + 1 :] if i else parts[2:]
            if i == 0 and parts[1] in ("-", "/", "//", "%", "@"):
                continue  # what is left would be another kind of term
            found.append(" ".join(left))
        return found

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = a + b", "x = (b)"), Example("x = a + b", "x = (a)", 1))


class ExchangeOperands(_Whole):
    """a - b -> b - a; also of quotients and matrix products."""

    def _ways(self, node: Any) -> list[str]:
        if node.type not in SUMS or len(node.children) != 3:
            return []
        a, sign, b = (_text(child) for child in node.children)
        return [f"{b} {sign} {a}"] if sign in ("-", "/", "@") else []

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = a - b", "x = (b - a)"),)


class ScaleNumber(_Whole):
    """A number twice as large; 0 becomes 1."""

    def _ways(self, node: Any) -> list[str]:
        if node.type != "number":
            return []
        value = eval(node.value)
        return [repr(value * 2 if value else type(value)(1))]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x = 3", "x = (6)"),)


class ExchangeArguments(_Whole):
    """f(a, b) -> f(b, a): neighbours among what is given by position."""

    def _ways(self, node: Any) -> list[str]:
        if node.type != "arglist" or node.parent.type == "classdef":
            return []
        called = node.get_first_leaf().get_previous_leaf().get_previous_leaf()
        if called is not None and called.value in ALIKE:
            return []
        parts = [child for child in node.children if child.type != "operator" or child.value != ","]
        texts = [_text(part) for part in parts]
        plain = [part.type not in ("argument",) for part in parts]
        found = []
        for i in range(len(parts) - 1):
            if plain[i] and plain[i + 1] and texts[i] != texts[i + 1]:
                exchanged = [*texts[:i], texts[i + 1], texts[i], *texts[i + 2 :]]
                found.append(", ".join(exchanged))
        return found

    def mutate(self, node: Any, index: int) -> Any:
        call = parso.parse(f"f({self._ways(node)[index]})").children[0]
        return call.children[1].children[1]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(a, b)", "f(b, a)"),)


class Detach(Operator):
    """x.detach() -> x; x.clone() and x.requires_grad_(...) stay."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        if node.type in ("atom_expr", "power"):
            for i in self._at(node):
                yield (node.children[i].start_pos, node.children[i + 1].end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        at = self._at(node)[index]
        del node.children[at : at + 2]
        return node

    def _at(self, node: Any) -> list[int]:
        return [
            i
            for i, child in enumerate(node.children[:-1])
            if child.type == "trailer" and _text(child) == ".detach"
        ]

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("y = x.detach().half()", "y = x.half()"),)


class Rename(Operator):
    """mean -> sum, minimum -> maximum, no_grad -> enable_grad: see RENAMED."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        if node.type == "name" and node.value in RENAMED and self._called(node):
            yield (node.start_pos, node.end_pos)

    @staticmethod
    def _called(node: Any) -> bool:
        after = node.get_next_leaf()
        before = node.get_previous_leaf()
        if before is not None and before.value == "def":
            return False
        return (after is not None and after.value == "(") or "grad" in node.value

    def mutate(self, node: Any, index: int) -> Any:
        node.value = RENAMED[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x.mean()", "x.sum()"),)


class Augmented(Operator):
    """x += y -> x -= y, and the other way round; *= and /= likewise."""

    signs = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="}

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        if node.type == "operator" and node.value in self.signs:
            yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        node.value = self.signs[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("x += 1", "x -= 1"),)


class Flag(Operator):
    """True <-> False, but for what only guards programmers (strict=True, frozen=True, eq=False)."""

    def mutation_positions(self, node: Any) -> Iterator[Place]:
        if node.type == "keyword" and node.value in ("True", "False"):
            name = node.parent.children[0] if node.parent.type == "argument" else None
            if name is None or name.value not in ("strict", "frozen", "eq"):
                yield (node.start_pos, node.end_pos)

    def mutate(self, node: Any, index: int) -> Any:
        node.value = "False" if node.value == "True" else "True"
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return (Example("f(x, keepdim=True)", "f(x, keepdim=False)"),)


OPERATORS = (
    DropTerm, ExchangeOperands, ScaleNumber, ExchangeArguments, Detach, Rename, Augmented,
    Flag,
)  # fmt: skip


class Provider:
    """The operators by name, as cosmic-ray asks for them."""

    def __iter__(self) -> Iterator[str]:
        return iter(one.__name__ for one in OPERATORS)

    def __getitem__(self, name: str) -> type[Operator]:
        return {one.__name__: one for one in OPERATORS}[name]
