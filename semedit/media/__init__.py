"""Files <-> pixels: photographs, label maps, atomic writes, provenance."""
