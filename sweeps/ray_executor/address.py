"""The address of a Ray cluster: from where it was given, checked before anything is started."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

from scaling.errors import InputError

VARIABLE = "RAY_ADDRESS"
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]@]+):(?P<port>\d{1,5})")
_SECONDS = 5.0


@dataclass(frozen=True)
class RayAddress:
    """An address and where it was given: `address` or the environment's RAY_ADDRESS."""

    text: str
    source: str

    @classmethod
    def given(cls, address: str | None) -> RayAddress | None:
        """The address of a cluster to join; None where there is none or it is `local`, for an instance of our own.

        Raises InputError for what is no address of a cluster.
        """
        source = VARIABLE if address is None else "`address`"
        text = (os.environ.get(VARIABLE, "") if address is None else address).strip()
        if text in ("", "local"):
            return None
        found = cls(text, source)
        if text != "auto":
            found._host_and_port()
        return found

    def require_answer(self) -> None:
        """Raises InputError where nothing listens at the address."""
        if self.text == "auto":
            return
        host, port = self._host_and_port()
        try:
            socket.create_connection((host, port), timeout=_SECONDS).close()
        except (OSError, UnicodeError) as error:
            raise self.unanswered(getattr(error, "strerror", None) or str(error)) from error

    def unanswered(self, cause: str) -> InputError:
        """The error where no cluster answers."""
        return InputError(
            f"{self.source} {self.text}: no Ray cluster answers ({cause}): start it, {self._remedy} (a cluster with "
            "token authentication needs RAY_AUTH_MODE=token in the environment)"
        )

    def _host_and_port(self) -> tuple[str, int]:
        match = _HOST_AND_PORT.fullmatch(self.text)
        if match and 0 < int(match["port"]) < 1 << 16:
            return match["host"].strip("[]"), int(match["port"])
        if re.match(r"https?://", self.text):
            wrong = "is the address of a dashboard, not of a cluster"
        elif "://" in self.text and not self.text.startswith("ray://"):
            wrong = "names a service that is not supported"
        elif match:
            wrong = "has no port from 1 to 65535"
        elif re.fullmatch(r"(ray://)?[\w.-]+", self.text):
            wrong = "lacks a port"
        else:
            wrong = "is no address"
        raise InputError(f"{self.source} {self.text}: it {wrong}; give host:6379 or ray://host:10001, {self._remedy}")

    @property
    def _remedy(self) -> str:
        leave = f"unset {VARIABLE}" if self.source == VARIABLE else f"leave {self.source} out"
        return f"or {leave} to use this machine alone"
