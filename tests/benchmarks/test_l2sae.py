"""An edit of one region in one pass against the default edit by a label map, on the same faces."""

from __future__ import annotations

import pytest

from semedit.evaluations.styles import StylesEvaluation
from semedit.generators import load_generator
from semedit.heads.truth import read_truths

HEADS = 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_edit_takes_a_fifth_of_a_second_and_a_fiftieth_of_the_other_route() -> None:
    generator = load_generator("heads-l2sae-128")
    evaluation = StylesEvaluation(("table",), rivals=HEADS)
    heads = read_truths()[:HEADS]
    figures = evaluation(heads, generator, load_generator("heads-128"), heads)
    print({name: figures[name] for name in ("roi_seconds", "mask_seconds", "ratio")})
    assert figures["roi_seconds"] <= 0.2
    assert figures["ratio"] >= 50
