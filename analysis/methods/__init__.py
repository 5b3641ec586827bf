"""Comparison of routers and expert kinds at one size."""
