"""CNeRF: a field for each region."""
