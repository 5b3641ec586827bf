"""Rates: how fast a metric falls along an axis, by arms, with intervals; and the best value of a setting along it."""
