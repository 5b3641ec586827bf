"""How many rounds one call of a compiled program takes, so that a training can be asked to stop about once a second."""

from __future__ import annotations

CALL_S = 1.0


class Pace:
    """One round first, then as many as take `CALL_S` by the call before, at most the `most` that a program takes."""

    def __init__(self, most: int) -> None:
        self._room, self._most = 1, most

    def rounds(self, left: int) -> int:
        """Rounds of the next call, of those that are left."""
        return min(self._room, left)

    def took(self, rounds: int, seconds: float) -> None:
        """A call of so many rounds is done."""
        self._room = max(1, min(self._most, int(rounds * CALL_S / max(seconds, 1e-6))))
