"""Validation of a fit: held-out runs, other laws, influence, residuals."""
