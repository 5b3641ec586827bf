"""Doubts: what is implausible in a table although it could be read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Doubt:
    """What is implausible, and where. It goes with the table into every fit of it, and from there into every answer.

    `code` names the kind; `rows` are the first rows of the file, from 1 (empty where all are meant, and in a study,
    whose runs the message names by `run_id`); `message` says what is wrong, where, and what to do.
    """

    code: str
    columns: tuple[str, ...]
    rows: tuple[int, ...]
    message: str

    def __str__(self) -> str:
        return self.message
