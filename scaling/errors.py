"""The two ways a command ends badly; the CLI turns each into one clear message and an exit status."""


class InputError(Exception):
    """What the user gave is wrong: the message names the place, the value and what is allowed. Exit status 2."""


class WorkError(Exception):
    """The work itself failed; the message says what is safe and what to do next. Exit status 1."""
