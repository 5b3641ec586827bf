"""Commands that measure time and fit it: bench, latency, training-speed."""
