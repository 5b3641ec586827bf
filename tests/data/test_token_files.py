"""Tokens that somebody else made: read where they are, equal to our own, and refused by file and place if wrong."""

import json
import shutil

import numpy as np
import pytest

from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.data import prepare
from scaling.data.batches import TrainBatches, eval_windows
from scaling.data.shards import TokenStream
from scaling.errors import InputError

END, VOCAB = 90, 91
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, END, size=RNG.integers(3, 40)).tolist() for _ in range(400)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def tokens_of(documents, end_after):
    """nanoGPT writes the separator after each document, llm.c before it."""
    return [token for row in documents for token in ([*row, END] if end_after else [END, *row])]


def write(folder, dtype="uint16", end_after=False, header=0, **changes):
    """Two training shards and held-out documents, as raw files with their tokens.json."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train_0": DOCUMENTS[:150], "train_1": DOCUMENTS[150:290], "val": DOCUMENTS[290:]}
    for name, documents in parts.items():
        raw = np.array(tokens_of(documents, end_after), dtype).tobytes()
        (folder / f"{name}.bin").write_bytes(b"\0" * header + raw)
    about = {"dtype": dtype, "vocab_size": VOCAB, "separator": END, "train": ["train_*.bin"], "heldout": ["val.bin"]}
    about |= {"bytes_per_token": 4.0, "header_bytes": header}
    about = {name: value for name, value in (about | changes).items() if value is not None}
    (folder / "tokens.json").write_text(json.dumps(about))
    return folder / "tokens.json"


def config(path, **changes):
    return DataConfig(corpus="tokens", paths=[str(path)], **{"heldout_docs": 100, **changes})


@pytest.mark.parametrize("end_after", [False, True], ids=["llm.c", "nanoGPT"])
@pytest.mark.parametrize(("dtype", "header"), [("uint16", 0), ("uint32", 1024)])
def test_raw_files_are_read_as_they_are(tmp_path, dtype, header, end_after):
    corpus = prepare(config(write(tmp_path / "raw", dtype, end_after, header)))
    expected = tokens_of(DOCUMENTS[:290], end_after)
    stream = corpus.tokens()
    assert isinstance(stream, TokenStream)
    np.testing.assert_array_equal(stream, expected)
    assert (corpus.vocab_size, corpus.separator, corpus.train_tokens) == (VOCAB, END, len(expected))
    heldout = [tuple(document.tokens.tolist()) for document in corpus.heldout()]
    assert len(heldout) == 100
    assert set(heldout) <= {(END, *row) for row in DOCUMENTS[290:]}
    windows = eval_windows(corpus.heldout(), 64, 16)
    assert windows.n_bytes.sum() == 4 * windows.weight.sum()
    cell = RunConfig(data=config(tmp_path / "raw" / "tokens.json"))
    assert str(tmp_path) not in json.dumps(cell.data.identity())


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_batches_of_shards_are_those_of_one_array(tmp_path, packing):
    corpus = prepare(config(write(tmp_path / "raw"), packing=packing))
    separator = END if packing == "documents" else None
    whole = np.array(tokens_of(DOCUMENTS[:290], False), np.uint16)
    shards, one = (TrainBatches(tokens, 16, 4, 3, separator) for tokens in (corpus.tokens(), whole))
    for step in (0, 7, 40, 3):
        np.testing.assert_array_equal(shards(step), one(step))


def test_a_share_is_held_out_from_a_separator_on(tmp_path):
    path = write(tmp_path / "raw", heldout=None, heldout_share=0.6)
    corpus = prepare(config(path))
    all_tokens = tokens_of(DOCUMENTS[:290], False)
    place = next(n for n in range(int(0.4 * len(all_tokens)), len(all_tokens)) if all_tokens[n] == END)
    np.testing.assert_array_equal(corpus.tokens(), all_tokens[:place])
    held = {tuple(row.tolist()) for row in (document.tokens for document in corpus.heldout())}
    assert held <= {(END, *row) for row in DOCUMENTS[:290]}


def test_tokens_of_our_own_are_such_a_folder(tmp_path, documents):
    """The cache entry of a text, copied elsewhere, trains the same batches and is held out alike."""
    text = prepare(DataConfig(corpus="files", paths=[documents], heldout_docs=100, tokenizer="bpe", bpe_vocab=300))
    shutil.copytree(text.folder, tmp_path / "copy")
    copy = prepare(config(tmp_path / "copy" / "tokens.json"))
    np.testing.assert_array_equal(copy.tokens(), text.tokens())
    assert (copy.vocab_size, copy.separator) == (text.vocab_size, text.separator) == (301, 300)
    ours, theirs = ({(d.tokens.tobytes(), d.n_bytes.sum()) for d in c.heldout()} for c in (text, copy))
    assert ours == theirs


def test_the_hash_covers_tokens_and_what_is_said_of_them_but_not_their_place(tmp_path):
    base = prepare(config(write(tmp_path / "a"))).hash
    assert prepare(config(write(tmp_path / "b"))).hash == base
    assert prepare(config(write(tmp_path / "c", vocab_size=95))).hash != base
    assert prepare(config(write(tmp_path / "d", bytes_per_token=3.0))).hash != base
    path = write(tmp_path / "e")
    raw = bytearray((path.parent / "train_1.bin").read_bytes())
    raw[0:2] = (7).to_bytes(2, "little")
    (path.parent / "train_1.bin").write_bytes(raw)
    assert prepare(config(path)).hash != base


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vocab_size": 80, "separator": 79}, ["train_0.bin", "token ", "byte ", "vocab_size=80"]),
        ({"dtype": "uint32"}, ["train_0.bin", "2 are left over"]),
        ({"header_bytes": 1}, ["train_0.bin", "left over"]),
        ({"separator": 91}, ["tokens.json", "separator=91"]),
        ({"vocab_size": 70_000}, ["tokens.json", "uint16"]),
        ({"bytes_per_token": None}, ["tokens.json", "bytes_per_token"]),
        ({"heldout": None}, ["tokens.json", "heldout_share"]),
        ({"heldout": ["test.bin"]}, ["test.bin"]),
        ({"dtype": "int8"}, ["tokens.json", "dtype"]),
        ({"vocabulary": 3}, ["tokens.json", "vocabulary"]),
        ({"heldout_bytes": "val.bin", "bytes_per_token": None}, ["val.bin", "npy"]),
    ],
    ids=str,
)
def test_wrong_metadata_is_refused_by_file_and_place(tmp_path, changes, words):
    written = {name: value for name, value in changes.items() if name not in ("dtype", "header_bytes")}
    path = write(tmp_path / "raw", **written)
    about = json.loads(path.read_text()) | {n: v for n, v in changes.items() if v is not None}
    path.write_text(json.dumps(about))
    with pytest.raises(InputError) as caught:
        prepare(config(path))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_place_of_a_wrong_token_is_exact(tmp_path):
    path = write(tmp_path / "raw", header=8)
    file = path.parent / "train_1.bin"
    raw = bytearray(file.read_bytes())
    raw[8 + 2 * 501 : 8 + 2 * 502] = (VOCAB).to_bytes(2, "little")
    file.write_bytes(raw)
    with pytest.raises(InputError, match=r"train_1\.bin: token 501 \(byte 1,010\) is 91"):
        prepare(config(path))


def test_a_file_of_llm_c_without_its_header_is_recognised(tmp_path):
    path = write(tmp_path / "raw", header=1024)
    file = path.parent / "train_0.bin"
    file.write_bytes((20240520).to_bytes(4, "little") + file.read_bytes()[4:])
    assert prepare(config(path)).train_documents == 290
    path.write_text(path.read_text().replace('"header_bytes": 1024', '"header_bytes": 0'))
    with pytest.raises(InputError, match=r"llm\.c: set `header_bytes` to 1024"):
        prepare(config(path))


def test_too_few_held_out_documents_are_refused(tmp_path):
    with pytest.raises(InputError, match="110"):
        prepare(config(write(tmp_path / "raw"), heldout_docs=111))
    with pytest.raises(InputError, match="paths"):
        prepare(config(tmp_path / "none.json"))
