"""What the statistical tasks share: samples, maximum likelihood, distances to the truth. Needs JAX."""
