"""Commands from runs to laws: fit, predict, validate, isoflop."""
