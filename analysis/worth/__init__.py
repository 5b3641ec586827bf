"""What an expert is worth: effective speedup at equal loss, in compute, device time and money."""
