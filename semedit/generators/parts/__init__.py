"""Layers and networks that several families of generators share."""
