"""The configuration of a run: validated settings, the registry of methods, counts of parameters and FLOPs."""
