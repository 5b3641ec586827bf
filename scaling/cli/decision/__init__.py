"""Commands from a law to a decision: recommend, serve, worth."""
