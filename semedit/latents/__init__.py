"""Latent: the codes of inverted or edited faces, and how they become pictures again.

A latent never holds a network. Pivotal tuning is kept as the differences of the parameters it
changed, per face, and applied for the length of a call: the generator itself stays as loaded.
"""

from semedit.latents.latent import (
    CODE,
    COMPOSITE,
    HEADER_BYTES,
    LARGEST,
    LONGEST_NAME,
    MOST_LAYERS,
    NOISE,
    PARTS,
    PLANES,
    STORED,
    TONE,
    TUNED,
    Codes,
    Composite,
    Latent,
    check,
    fingerprint,
    load,
    require_same,
    shapes_of,
    stack,
)
from semedit.latents.tone import Tone, tone_of
from semedit.latents.tuned import TunedGenerator, join_outputs, picture, synthesize, tuned_generator

__all__ = [
    "CODE",
    "COMPOSITE",
    "Codes",
    "Composite",
    "HEADER_BYTES",
    "LARGEST",
    "LONGEST_NAME",
    "Latent",
    "MOST_LAYERS",
    "NOISE",
    "PARTS",
    "PLANES",
    "STORED",
    "TONE",
    "TUNED",
    "Tone",
    "TunedGenerator",
    "check",
    "fingerprint",
    "join_outputs",
    "load",
    "picture",
    "require_same",
    "shapes_of",
    "stack",
    "synthesize",
    "tone_of",
    "tuned_generator",
]
