"""Tokens that somebody else made: raw files of uint16 or uint32 and what must be known of them, in one `tokens.json`.

    {"dtype": "uint16", "vocab_size": 50257, "separator": 50256,
     "train": ["train_*.bin"], "heldout": ["val.bin"], "bytes_per_token": 4.43}

The files of nanoGPT are such files; those of llm.c begin with 1024 bytes of `header_bytes`.
"""

from __future__ import annotations

import functools
import glob
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from scaling.config.fields import Count, Frozen, Real, Whole
from scaling.config.vocabulary import MOST_SYMBOLS
from scaling.errors import InputError

NAME = "tokens.json"


class TokenFiles(Frozen):
    """What `tokens.json` says. Files are globs that start at its folder, in name order.

    vocab_size: symbols, the separator included; every token is below it.
    separator: the symbol between documents, before or after each.
    heldout: files of held-out documents; or `heldout_share`, the end of the training tokens from a separator on.
    header_bytes: bytes before the tokens of each file.
    bytes_per_token: mean bytes of text a held-out token, for bits per byte; or `heldout_bytes`, a .npy file with the
    bytes of each held-out token in order, those of separators 0.
    """

    dtype: Literal["uint16", "uint32"]
    vocab_size: Annotated[Count, Field(ge=2, le=MOST_SYMBOLS)]
    separator: Whole
    train: Annotated[tuple[str, ...], Field(min_length=1)]
    heldout: tuple[str, ...] = ()
    heldout_share: Annotated[Real, Field(gt=0, lt=1)] | None = None
    header_bytes: Annotated[Whole, Field(le=2**20)] = 0
    bytes_per_token: Annotated[Real, Field(gt=0, le=1000)] | None = None
    heldout_bytes: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> TokenFiles:
        if self.separator >= self.vocab_size:
            raise ValueError(f"separator={self.separator} must be below vocab_size={self.vocab_size}")
        if self.dtype == "uint16" and self.vocab_size > 2**16:
            raise ValueError(f"vocab_size={self.vocab_size} does not fit dtype=uint16; the files must be uint32")
        if bool(self.heldout) == (self.heldout_share is not None):
            raise ValueError("give either `heldout`, files of held-out documents, or `heldout_share` of `train`")
        if (self.bytes_per_token is None) == (self.heldout_bytes is None):
            raise ValueError(
                "bits per byte needs either `bytes_per_token`, the bytes of the held-out text over its tokens, or "
                "`heldout_bytes`, a .npy file with the bytes of each held-out token"
            )
        if self.heldout_bytes and not self.heldout:
            raise ValueError("heldout_bytes counts the tokens of `heldout` files, and there are none")
        return self


def token_files(path: str) -> TokenFiles:
    """What a `tokens.json` says. Raises InputError naming the file and the field."""
    try:
        about = Path(path).stat()
        return _read(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise InputError(f"data.paths: {path} cannot be read: {error.strerror}") from error


@functools.lru_cache(maxsize=16)
def _read(path: str, time_ns: int, size: int) -> TokenFiles:
    try:
        return TokenFiles.model_validate_json(Path(path).read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {'; '.join(_said(part) for part in error.errors())}") from error


def _said(part: Any) -> str:
    place = ".".join(str(name) for name in part["loc"])
    return f"{place}: {part['msg']}" if place else str(part["msg"]).removeprefix("Value error, ")


def files_of(path: str, patterns: tuple[str, ...]) -> list[Path]:
    """The files of some globs beside a `tokens.json`, in name order. Raises InputError for a glob without files."""
    found: set[Path] = set()
    for pattern in patterns:
        matches = {Path(m) for m in glob.glob(str(Path(path).parent / pattern), recursive=True) if Path(m).is_file()}
        if not matches:
            raise InputError(f"{path}: {pattern!r} matches no file beside it")
        found |= matches
    return sorted(found)
