"""How a sweep ends early: time limits, signals, and what the driver tells its workers."""
