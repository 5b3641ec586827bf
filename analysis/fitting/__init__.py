"""From a table of runs to a fitted law with intervals."""
