"""One file a command of `semedit eval`, named like it."""
