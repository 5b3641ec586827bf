"""Tasks: a RunConfig to the rows of one cell."""

from scaling.training.language_model import CellResult, train_cells

__all__ = ["CellResult", "train_cells"]
