"""What is weak in a grid, found before it starts; none of it stops a sweep."""

from sweeps.lint.design import of_design, unread
from sweeps.lint.text import Text, of_text
from sweeps.lint.training import of_training

__all__ = ["Text", "of_design", "of_text", "of_training", "unread"]
