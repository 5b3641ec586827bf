"""The Ray executor: Ray Tune as a pool of reused actors. Only this package imports Ray."""
