"""Linear directions in a generator's codes: kept, fitted, imported."""
