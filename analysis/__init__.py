"""Tables to claims: read runs, fit laws with intervals, recommend. Imports neither JAX nor Ray."""
