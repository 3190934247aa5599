"""Radiance on surfaces: SemFaceEdit's manifolds and GRAM."""
