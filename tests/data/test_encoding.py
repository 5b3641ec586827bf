"""Text for training is UTF-8: anything else is refused, with file and byte, before a token is written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling import data
from scaling.config.data import DataConfig
from scaling.data import corpus, encoding
from scaling.errors import InputError

GOOD = "Ein schöner Satz über Größen.\n"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def config(folder: Path, pattern: str = "*.txt") -> DataConfig:
    return DataConfig(corpus="files", paths=(str(folder / pattern),), heldout_docs=100, tokenizer="bytes")


def folder_with(tmp_path: Path, name: str, raw: bytes) -> Path:
    """Some good files and one of these bytes."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(220):
        (folder / f"{number}.txt").write_text(f"{number}: {GOOD}", encoding="utf-8")
    (folder / name).write_bytes(raw)
    return folder


LONG = b"a line of text\n" * 1000


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (GOOD.encode("latin-1"), ["byte 8 (0xf6)", "iconv"]),
        (LONG + b"one bad \xff byte\n" + LONG, ["byte 15009, in line 1001, (0xff)", "iconv -c"]),
        (GOOD.encode("utf-16"), ["UTF-16", "iconv -f UTF-16"]),
        (GOOD.encode("utf-32"), ["UTF-32"]),
        (b"plain ASCII".decode().encode("utf-16-le"), ["byte 2 (0x00)", "UTF-16"]),
        (b"%PDF-1.4\n1 0 obj\n", ["PDF", "pdftotext"]),
        (b"PK\x03\x04\x14\x00\x00\x00", ["byte 6 (0x00)", "binary"]),
    ],
)
def test_a_file_that_is_not_utf8_is_refused_with_its_byte(tmp_path: Path, raw: bytes, words: list[str]) -> None:
    folder = folder_with(tmp_path, "x.txt", raw)
    with pytest.raises(InputError) as refused:
        data.prepare(config(folder))
    assert all(word in str(refused.value) for word in [str(folder / "x.txt"), *words])
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_compressed_text_is_held_to_the_same(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "x.txt.gz", gzip.compress(GOOD.encode("latin-1")))
    with pytest.raises(InputError, match=r"x\.txt\.gz: byte 8"):
        data.prepare(config(folder, "*"))


def test_a_mark_that_text_is_utf8_is_not_text(tmp_path: Path) -> None:
    with_mark = folder_with(tmp_path, "x.txt", b"\xef\xbb\xbf" + GOOD.encode())
    marked = data.prepare(config(with_mark))
    (with_mark / "x.txt").write_bytes(GOOD.encode())
    assert data.prepare(config(with_mark)).hash == marked.hash


def test_the_replacement_character_itself_is_text() -> None:
    assert encoding.text_of("a\ufffdb".encode(), "x") == "a\ufffdb"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "é"}'.encode("latin-1"), ["line 2", "byte 11 (0xe9)"]),
        (b'{"text": "\\ud800 alone"}', ["line 2", "U+D800"]),
        (b'{"text": ' + b"[" * 100_000, ["line 2"]),
    ],
)
def test_a_record_is_named_by_its_line(tmp_path: Path, line: bytes, words: list[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": GOOD}).encode() + b"\n" + line + b"\n")
    with pytest.raises(InputError) as refused:
        data.prepare(config(folder, "*.jsonl"))
    assert all(word in str(refused.value) for word in ["a.jsonl", *words])


def test_a_row_of_parquet_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    texts = pa.array([GOOD.encode(), GOOD.encode("latin-1")]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet row 2: byte 8 \(0xf6\)"):
        data.prepare(config(tmp_path, "*.parquet"))


def test_python_is_read_in_the_encoding_that_it_declares() -> None:
    assert encoding.python_source("# coding: latin-1\nx = 'é'\n".encode("latin-1")) == "# coding: latin-1\nx = 'é'\n"
    assert encoding.python_source("x = 'é'\n".encode("latin-1")) is None
    assert encoding.python_source("\ufeffx = 'é'\n".encode()) == "x = 'é'\n"


@pytest.mark.parametrize("name", ["meta.json", "train.bin", "heldout.npz"])
def test_half_a_cache_entry_is_made_again(tmp_path: Path, name: str) -> None:
    """As after a power cut: the name is there, the content is not."""
    chosen = config(folder_with(tmp_path, "x.txt", GOOD.encode()))
    whole = data.prepare(chosen)
    (whole.folder / name).write_bytes(b"")
    assert data.prepare(chosen) == whole
    assert len(whole.tokens()) == whole.train_tokens
    assert len(whole.heldout()) == 100


def test_what_was_replaced_before_is_not_used_again() -> None:
    """An entry of the time when other bytes became U+FFFD has another name."""
    assert corpus._ENTRY > 1
