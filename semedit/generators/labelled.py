"""Label maps for generators that draw none: a parser reads them off the pictures."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from semedit.faces import pipeline
from semedit.faces.parsing import Parser
from semedit.generators.contract import Generator, Output


class Labelled(Generator):
    """What `with_labels` adds to a generator's own class: Output.seg is what a parser sees.

    Weights, names and codes are the generator's, so that latents of the one are the other's.
    Gradients of labels reach the codes through the picture.

    Attributes:
        parser: what reads the label maps.
    """

    _parser: tuple[Parser]  # in a tuple: not among the weights

    @property
    def parser(self) -> Parser:
        return self._parser[0]

    def synthesis(self, *args: Any, **kwargs: Any) -> Output:
        """As the generator's, with seg [N,19,S,S], S of the parser."""
        return self._parsed(super().synthesis(*args, **kwargs))

    def render(self, *args: Any, **kwargs: Any) -> Output:
        """As the generator's, with seg [N,19,S,S], S of the parser."""
        return self._parsed(super().render(*args, **kwargs))

    def _parsed(self, output: Output) -> Output:
        if output.seg is not None:  # synthesis may be planes and render
            return output
        return replace(output, seg=self.parser.logits(output.image).to(output.image))


def with_labels(generator: Any, parser: str = "auto") -> Any:
    """The generator itself where it draws label maps, else with those that a parser sees.

    Args:   parser: its name, "auto" for the best one on the disk.
    Raises: OptionError: no such parser.  WeightsError: its weights are not there.
    """
    if "seg" in generator.traits:
        return generator
    found = copy.copy(generator)  # all weights are shared
    kind = type(generator)
    found.__class__ = type(kind.__name__, (Labelled, kind), {})
    found._parser = (pipeline.parser(parser, str(generator.device)),)
    found.traits = generator.traits | {"seg"}
    return found


def judge(generator: Any, device: str = "cpu") -> Parser:
    """Who judges what became of label maps: the built-in parser; of a generator whose maps are a
    parser's own, one that no descent has asked, if there is one on the disk besides."""
    if isinstance(generator, Labelled):
        return pipeline.second_parser("builtin", generator.parser.name, device=device)
    return pipeline.parser("builtin", device)
