"""The command line: one file per command group. It parses and delegates, and nothing imports it."""
