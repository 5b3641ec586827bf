"""Comparisons with other software: opt-in, they need the extra `bench`."""
