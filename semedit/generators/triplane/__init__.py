"""Tri-planes: our own, EG3D and IDE-3D."""
