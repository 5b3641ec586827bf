"""What a run is: validated configuration, the registry of methods, counts of parameters and FLOPs."""
