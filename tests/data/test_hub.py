"""Streamed datasets, tested offline with local files: read once, and identified by their settings."""

import gzip
import json
import pickle
import sys

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.data import prepare, sources
from scaling.errors import InputError

TEXTS = [f"row {i} of a dataset, with ü and a\ttab " * 3 for i in range(260)]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def write(path, kind, texts=TEXTS, field="text"):
    if kind == "parquet":
        pq.write_table(pa.table({"number": range(len(texts)), field: texts}), path)
    elif kind == "json":
        path.write_text("\n".join(json.dumps({field: text}) for text in texts))
    elif kind == "json.gz":
        path.write_bytes(gzip.compress("\n".join(json.dumps({field: text}) for text in texts).encode()))
    else:
        path.write_text("\n".join(texts))
    return str(path)


def config(path, dataset="json", **changes):
    return DataConfig(corpus="huggingface", dataset=dataset, paths=[path], heldout_docs=100, **changes)


@pytest.mark.parametrize(
    ("kind", "dataset", "name"),
    [
        ("json", "json", "x.jsonl"),
        ("json.gz", "json", "x.jsonl.gz"),
        ("parquet", "parquet", "x.parquet"),
        ("text", "text", "x.txt"),
    ],
)
def test_local_files_stream_to_the_same_documents(tmp_path, kind, dataset, name):
    read = list(sources.documents(config(write(tmp_path / name, kind), dataset)))
    assert [text for _, text in read] == TEXTS
    assert read[6][0] == f"{dataset}/train:7"


def test_pickled_files_are_not_read(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(TEXTS))
    with pytest.raises(InputError, match=r"data\.dataset: pandas .* Parquet"):
        list(sources.documents(config(str(tmp_path / "x.pkl"), "pandas")))


def test_the_library_and_our_reader_make_the_same_corpus(tmp_path):
    path = write(tmp_path / "x.jsonl", "json")
    streamed = prepare(config(path))
    plain = prepare(DataConfig(corpus="files", paths=[path], heldout_docs=100))
    np.testing.assert_array_equal(np.asarray(streamed.tokens()), np.asarray(plain.tokens()))
    ours, theirs = (sorted(part.tokens.tobytes() for part in corpus.heldout()) for corpus in (streamed, plain))
    assert ours == theirs
    assert streamed.hash == plain.hash


def test_a_stream_is_read_once_for_all_passes_and_tokenisers(tmp_path, monkeypatch):
    path, reads = write(tmp_path / "x.jsonl", "json"), []
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: reads.append(args) or load(*args, **options))
    prepare(config(path, tokenizer="bpe", bpe_vocab=280))  # finds the split, trains a tokeniser, writes tokens
    prepare(config(path))
    prepare(config(path).model_copy(update={"heldout_docs": 101}))
    assert len(reads) == 1
    write(tmp_path / "x.jsonl", "json", [*TEXTS, "one more"])
    assert len(list(sources.documents(config(path)))) == 261  # another file: another entry
    assert len(list(sources.documents(config(path, max_documents=7)))) == 7
    assert len(reads) == 3
    assert not list((tmp_path / "cache").rglob(".making-*"))


def test_a_dataset_may_be_several_files_another_field_and_another_split(tmp_path):
    for number in range(3):
        write(tmp_path / f"part-{number}.parquet", "parquet", TEXTS[number::3], field="body")
    pattern = str(tmp_path / "part-*.parquet")
    dataset = config(pattern, "parquet", text_field="body", split="validation", max_documents=150)
    read = [text for _, text in sources.documents(dataset)]
    assert read == [*TEXTS[0::3], *TEXTS[1::3]][:150]  # in the order of their names


def test_unreadable_datasets_are_refused_with_place_and_remedy(tmp_path, monkeypatch):
    path = write(tmp_path / "x.parquet", "parquet")
    with pytest.raises(InputError, match="no field 'body'; it has number, text"):
        prepare(config(path, "parquet", text_field="body"))
    with pytest.raises(InputError, match="row 1: 'number' is int, expected text"):
        prepare(config(path, "parquet", text_field="number"))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"dataset=parquet .*broken.parquet"):
        prepare(config(str(tmp_path / "broken.parquet"), "parquet"))
    with pytest.raises(InputError, match="matches no file"):
        prepare(config(str(tmp_path / "nothing.parquet"), "parquet"))
    with pytest.raises(InputError, match=f"dataset=nobody/nothing .*the hub at {COMMIT}"):
        prepare(DataConfig(corpus="huggingface", dataset="nobody/nothing", revision=COMMIT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="'folder' is a local path"):
        prepare(DataConfig(corpus="huggingface", dataset="folder", revision=COMMIT))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'moe-scaling\[data\]'"):
        prepare(config(path, "parquet"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]  # nothing half-read is left


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corpus": "huggingface"}, ["needs dataset"]),
        ({"corpus": "huggingface", "dataset": "a/b"}, ["dataset=a/b", "revision=None", "40 hex"]),
        ({"corpus": "huggingface", "dataset": "a/b", "revision": "main"}, ["revision=main", "40 hex"]),
        ({"corpus": "huggingface", "dataset": "json", "paths": ["x"], "revision": COMMIT}, ["revision"]),
        ({"dataset": "a/b"}, ["dataset=a/b", "needs corpus=huggingface"]),
        ({"max_documents": 5}, ["max_documents=5", "needs corpus=huggingface"]),
        ({"corpus": "huggingface", "dataset": "json", "paths": ["x"], "max_documents": 0}, ["max_documents"]),
    ],
)  # fmt: skip
def test_a_dataset_without_a_fixed_identity_is_refused(changes, words):
    with pytest.raises(ValidationError) as caught:
        DataConfig(**changes)
    assert all(word in str(caught.value) for word in words)


def test_dataset_settings_change_the_run_id():
    base = {"corpus": "huggingface", "dataset": "a/b", "revision": COMMIT}
    changed = [
        {"subset": "en"},
        {"split": "test"},
        {"max_documents": 9},
        {"revision": COMMIT[::-1]},
        {"dataset": "a/c"},
    ]
    ids = {RunConfig(data=DataConfig(**base | change)).run_id("x") for change in [{}, *changed]}
    assert len(ids) == 6
