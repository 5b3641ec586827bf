"""From measured step times to a law of latency."""
