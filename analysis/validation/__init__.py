"""How far a fit can be trusted: held-out runs, other laws, influence, residuals."""
