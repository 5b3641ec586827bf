"""Tasks: a RunConfig to the rows of one cell."""

from scaling.tasks.lm import CellResult, train

__all__ = ["CellResult", "train"]
