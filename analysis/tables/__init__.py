"""From files to runs: readers, column mapping, conventions."""
