"""The errors that end a command; the command line prints the message and sets the exit status."""

import signal


class InputError(Exception):
    """The input is wrong; the message names the place, the value and what is allowed. Exit status 2."""


class WorkError(Exception):
    """The work failed; the message says what is safe and what to do next. Exit status 1."""


class Stopped(BaseException):
    """A signal ended the work, as Ctrl-C does. Exit status 128 + its number, as a shell has it."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name}: what is on disk is whole; the same command goes on from there")
        self.number = number
