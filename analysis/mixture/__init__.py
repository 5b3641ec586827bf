"""Several laws taken together: weighed by roll-out, with the discrepancy that remains beyond the largest run."""
