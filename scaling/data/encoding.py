"""Bytes as text: UTF-8, or an error that names the first byte that is not."""

from __future__ import annotations

import codecs
import io
import tokenize

from scaling.errors import InputError

_REMEDY = (
    "convert it to UTF-8 (from Latin-1: `iconv -f LATIN1 -t UTF-8`), or drop such bytes (`iconv -c -f UTF-8 -t UTF-8`)"
)
_OTHERS = {  # by their first bytes, the longer before what they begin with
    codecs.BOM_UTF32_LE: "UTF-32 text; convert it to UTF-8: `iconv -f UTF-32 -t UTF-8`",
    codecs.BOM_UTF32_BE: "UTF-32 text; convert it to UTF-8: `iconv -f UTF-32 -t UTF-8`",
    codecs.BOM_UTF16_LE: "UTF-16 text; convert it to UTF-8: `iconv -f UTF-16 -t UTF-8`",
    codecs.BOM_UTF16_BE: "UTF-16 text; convert it to UTF-8: `iconv -f UTF-16 -t UTF-8`",
    b"%PDF-": "a PDF, not text; extract its text first, as `pdftotext` does",
}


def text_of(raw: bytes, place: str) -> str:
    """Bytes as text, without a mark at the beginning that they are UTF-8.

    A model would train on what is no text as if it were: on U+FFFD for each byte of another encoding, on zeros between
    the letters of UTF-16. Raises InputError naming `place` and the first such byte.
    """
    raw = raw.removeprefix(codecs.BOM_UTF8)
    for beginning, what in _OTHERS.items():
        if raw.startswith(beginning):
            raise InputError(f"data: {place}: {what}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"data: {place}: {_byte(raw, error.start)} is not UTF-8; {_REMEDY}") from error
    if (zero := raw.find(0)) >= 0:
        raise InputError(f"data: {place}: {_byte(raw, zero)} is no text, so this is binary data or UTF-16; {_REMEDY}")
    return text


def checked_text(text: str, place: str) -> str:
    """Text that a record holds. Raises InputError for half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"U+{ord(text[error.start]):04X} at character {error.start + 1}"
        raise InputError(f"data: {place}: half a surrogate pair ({half}) is no character; repair the text") from error
    return text


def python_source(raw: bytes) -> str | None:
    """A Python file as text in the encoding that it declares (PEP 263); None if it is in another one after all."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return None


def _byte(raw: bytes, at: int) -> str:
    line = raw.count(b"\n", 0, at) + 1
    where = f"byte {at + 1}" + (f", in line {line}," if line > 1 else "")
    return f"{where} (0x{raw[at]:02x})"
