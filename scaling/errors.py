"""The two errors that end a command; the command line prints the message and sets the exit status."""


class InputError(Exception):
    """The input is wrong; the message names the place, the value and what is allowed. Exit status 2."""


class WorkError(Exception):
    """The work failed; the message says what is safe and what to do next. Exit status 1."""
