"""Corpora, tokenisers, split and batches: documents are read completely, and nothing leaks or repeats."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from scaling.config.data import DataConfig
from scaling.data import prepare, sources
from scaling.data.batches import TrainBatches, eval_windows
from scaling.data.tokenizer import Bytes
from scaling.errors import InputError

SEPARATOR = 256


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def config(*paths, **changes):
    return DataConfig(corpus="files", paths=[str(path) for path in paths], heldout_docs=100, **changes)


def test_every_document_is_in_exactly_one_part(documents):
    corpus = prepare(config(documents))
    stream = np.asarray(corpus.tokens())
    starts = np.flatnonzero(stream == SEPARATOR)
    train = [
        bytes(stream[a + 1 : b].astype(np.uint8)).decode()
        for a, b in zip(starts, [*starts[1:], len(stream)], strict=True)
    ]
    heldout = [bytes(d.tokens[1:].astype(np.uint8)).decode() for d in corpus.heldout()]
    read = sorted(text for _, text in sources.documents(config(documents)))
    assert sorted(train + heldout) == read
    assert len(heldout) == 100 == corpus.heldout_documents
    assert (len(train), len(stream)) == (corpus.train_documents, corpus.train_tokens)
    assert all(
        d.tokens[0] == SEPARATOR and d.n_bytes[0] == 0 and d.n_bytes[1:].sum() == len(d.tokens) - 1
        for d in corpus.heldout()
    )


def test_copies_of_a_held_out_text_stay_out_of_training(tmp_path):
    lines = [json.dumps({"text": f"document number {i} " * 3}) for i in range(300)]
    path = tmp_path / "twice.jsonl"
    path.write_text("\n".join(lines + lines))
    corpus = prepare(config(path))
    stream = np.asarray(corpus.tokens())
    train = bytes(stream[stream < SEPARATOR].astype(np.uint8)).decode()
    for document in corpus.heldout():
        assert bytes(document.tokens[1:].astype(np.uint8)).decode() not in train
    assert corpus.train_documents == 2 * 200


def test_the_split_depends_on_text_alone(tmp_path):
    """The same texts in another file, format and order give the same held-out texts."""
    rows = [f"text {i} " * 5 for i in range(250)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": row}) for row in rows))
    pq.write_table(pa.table({"body": rows[::-1]}), tmp_path / "b.parquet")
    corpora = prepare(config(tmp_path / "a.jsonl")), prepare(config(tmp_path / "b.parquet", text_field="body"))
    lines, rows_reversed = ({d.tokens.tobytes() for d in corpus.heldout()} for corpus in corpora)
    assert lines == rows_reversed


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_compressed_lines_read_alike(tmp_path, suffix):
    content = "\n".join(json.dumps({"text": f"line {i} ü"}) for i in range(220)).encode()
    openers = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    path = tmp_path / f"lines.jsonl{suffix}"
    if suffix == ".zst":
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(content)
    else:
        with openers[suffix](path, "wb") as stream:
            stream.write(content)
    read = list(sources.documents(config(path)))
    assert [text for _, text in read] == [f"line {i} ü" for i in range(220)]
    assert read[6][0].endswith(":7")


def test_the_hash_depends_on_text_and_split_but_not_on_path_or_time(tmp_path):
    def at(folder, last):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "x.jsonl"
        path.write_text(
            "\n".join(json.dumps({"text": f"{i} {'x' * 9}"}) for i in range(249)) + "\n" + json.dumps({"text": last})
        )
        return path

    base = prepare(config(at("a", "end"))).hash
    assert prepare(config(at("b", "end"))).hash == base
    assert prepare(config(at("c", "END"))).hash != base
    assert prepare(DataConfig(corpus="files", paths=[str(tmp_path / "a/x.jsonl")], heldout_docs=101)).hash != base


def test_the_standard_library_is_the_default_text_without_tests_and_tables():
    names = [name for name, _ in sources.files_of(DataConfig())]
    assert "stdlib/argparse.py" in names
    assert not [n for n in names if {"test", "tests", "encodings", "site-packages", "pydoc_data"} & set(n.split("/"))]
    corpus = prepare(DataConfig())
    assert corpus.train_tokens > 5_000_000  # the quickstart's largest budget stays below one epoch
    assert corpus.heldout_documents == 128
    more = {name for name, _ in sources.files_of(DataConfig(corpus="python-environment"))}
    assert set(names) < more
    assert any(name.startswith("site/numpy/") for name in more)


def test_named_packages_are_the_same_text_whatever_else_is_installed():
    def names(*packages):
        return [name for name, _ in sources.files_of(DataConfig(corpus="python-environment", packages=packages))]

    alone = names("pydantic")
    assert "site/pydantic/main.py" in alone
    assert {name.split("/")[1] for name in alone} == {"pydantic"}
    assert names("typer", "pydantic") == names("pydantic", "typer", "pydantic") == sorted([*alone, *names("typer")])
    assert not [name for name in names("numpy") if "/tests/" in name]
    with pytest.raises(InputError, match="no-such-package"):
        names("pydantic", "no-such-package")
    with pytest.raises(ValidationError, match="packages"):
        DataConfig(packages=["pydantic"])


def test_the_hash_of_the_text_stands_for_the_names_of_packages():
    whole = DataConfig(corpus="python-environment")
    some, others = (whole.model_copy(update={"packages": packages}) for packages in (("scipy",), ("statsmodels",)))
    assert whole.identity() == some.identity()
    assert prepare(some).hash != prepare(others).hash


def test_byte_pairs_compress_and_keep_every_byte(documents):
    corpus = prepare(config(documents, tokenizer="bpe", bpe_vocab=300))
    plain = prepare(config(documents))
    assert corpus.train_tokens < 0.6 * plain.train_tokens
    assert corpus.vocab_size == 301
    for ours, theirs in zip(corpus.heldout(), plain.heldout(), strict=True):
        assert ours.n_bytes.sum() == theirs.n_bytes.sum()
    assert corpus.hash != plain.hash


@pytest.mark.parametrize(
    ("write", "changes", "words"),
    [
        (lambda p: p.write_text('{"text": "a"}\n{"txt": "b"}\n'), {}, ["line 2", "'text'"]),
        (lambda p: p.write_text('{"text": "a"}\nnot json\n'), {}, ["line 2"]),
        (lambda p: p.write_text('{"text": 5}\n'), {}, ["line 1", "int"]),
        (lambda p: p.write_text(""), {}, ["documents", "200"]),
        (lambda p: p.write_text("\n".join(json.dumps({"text": f"{i} abc"}) for i in range(150))), {}, ["150", "200"]),
        (lambda p: p.write_text("\n".join(json.dumps({"text": f"{i} abc"}) for i in range(300))),
         {"tokenizer": "bpe", "bpe_vocab": 4000}, ["bpe_vocab=4000"]),
    ],
    ids=["field", "syntax", "type", "empty", "few", "bpe"],
)  # fmt: skip
def test_bad_text_is_refused_by_place_and_remedy(tmp_path, write, changes, words):
    path = tmp_path / "bad.jsonl"
    write(path)
    with pytest.raises(InputError) as caught:
        prepare(config(path, **changes))
    assert all(word in str(caught.value) for word in words)
    assert not list((tmp_path / "cache").rglob("meta.json"))  # nothing half-made is left to be found


def test_missing_files_and_broken_archives_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing-\*\.txt"):
        prepare(config(tmp_path / "nothing-*.txt"))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "abc"}\n' * 500, mtime=0)[:-9])
    with pytest.raises(InputError, match=r"x\.jsonl\.gz"):
        prepare(config(tmp_path / "x.jsonl.gz"))


def test_an_epoch_visits_every_block_once_and_steps_can_be_read_in_any_order():
    tokens = np.arange(1001, dtype=np.uint16)
    batches = TrainBatches(tokens, seq_len=10, sequences=4, seed=3)
    steps = [batches(step) for step in range(25)]
    firsts = np.concatenate([batch[:, 0] for batch in steps])
    assert sorted(firsts.tolist()) == list(range(0, 1000, 10))  # 100 blocks, one epoch
    assert all((np.diff(batch, axis=1) == 1).all() for batch in steps)
    again = TrainBatches(tokens, 10, 4, 3)
    for step in (60, 3, 25, 24):  # across epochs, in any order
        np.testing.assert_array_equal(again(step), TrainBatches(tokens, 10, 4, 3)(step))
    assert (TrainBatches(tokens, 10, 4, 4)(0) != steps[0]).any()
    assert (batches(25) != steps[0]).any()  # the second epoch has its own order


WORKER = """
import hashlib, json, sys
from scaling.config.run import DataConfig
from scaling.data import prepare
from scaling.data.batches import TrainBatches
config, rank, workers = DataConfig(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
corpus = prepare(config)
separator = corpus.separator if config.packing == "documents" else None
batches = TrainBatches(corpus.tokens(), 16, 4, 3, separator)
steps = range(rank, batches.n_blocks, workers)  # four epochs of batches of four blocks
print(json.dumps([corpus.hash, {step: hashlib.sha256(batches(step).tobytes()).hexdigest() for step in steps}]))
"""


@pytest.mark.parametrize("packing", ["stream", "documents"])
def test_the_order_does_not_depend_on_how_many_workers_prepare_and_read(documents, tmp_path, packing):
    """Three processes prepare the corpus at once and share its steps; one process prepares its own and reads all steps
    of four epochs. Strings hash differently in each process."""
    settings = json.dumps({"corpus": "files", "paths": [documents], "heldout_docs": 100, "packing": packing})

    def share(ranks, workers, cache):
        environment = [os.environ | {"SCALING_CACHE": str(cache), "PYTHONHASHSEED": str(rank)} for rank in ranks]
        command = [sys.executable, "-c", WORKER, settings]
        started = [
            subprocess.Popen([*command, str(rank), str(workers)], env=env, stdout=subprocess.PIPE)
            for rank, env in zip(ranks, environment, strict=True)
        ]
        ended = [process.communicate()[0] for process in started]
        assert [process.returncode for process in started] == [0] * len(ranks)
        return [json.loads(out) for out in ended]

    ((one_hash, alone),) = share([0], 1, tmp_path / "one")
    shares = share([0, 1, 2], 3, tmp_path / "three")
    assert {corpus_hash for corpus_hash, _ in shares} == {one_hash}
    together = {step: digest for _, part in shares for step, digest in part.items()}
    assert sum(len(part) for _, part in shares) == len(alone) > 100
    assert together == alone


@pytest.mark.parametrize("separator", [None, 999])
def test_threads_may_share_the_batches_and_any_step_resumes_exactly(separator):
    places = np.arange(1001, dtype=np.uint16)
    tokens = np.where(places % 13 == 0, np.uint16(999), places)
    whole = TrainBatches(tokens, 10, 4, 3, separator)
    expected = [whole(step) for step in range(200)]
    shared = TrainBatches(tokens, 10, 4, 3, separator)
    order = np.random.default_rng(0).permutation(200).tolist()  # epochs interleave: each call needs another order
    with ThreadPoolExecutor(8) as pool:
        for step, batch in zip(order, pool.map(shared, order), strict=True):
            np.testing.assert_array_equal(batch, expected[step])
    for start in (1, 24, 25, 26, 111):  # around the end of the stream's epoch of 25 steps too
        resumed = TrainBatches(tokens, 10, 4, 3, separator)
        np.testing.assert_array_equal(resumed(start), expected[start])


def test_windows_cover_each_document_without_overlap(documents):
    heldout = prepare(config(documents)).heldout()
    windows = eval_windows(heldout, seq_len=16, per_document=3)
    assert set(windows.document.tolist()) == set(range(100))
    assert np.bincount(windows.document).max() <= 3
    for number, document in enumerate(heldout):
        mine = windows.document == number
        targets = sum(int(w.sum()) for w in windows.weight[mine])
        assert 0 < targets <= len(document.tokens) - 1
        # The padding has no weight and no bytes; inside, a window is a stretch of the document.
        for row, weight in zip(windows.tokens[mine], windows.weight[mine], strict=True):
            stretch = row[: int(weight.sum()) + 1].astype(np.uint16)
            assert stretch.tobytes() in document.tokens.tobytes()
    assert windows.n_bytes[windows.weight == 0].sum() == 0
    everything = eval_windows(heldout, seq_len=16, per_document=10_000)
    assert everything.weight.sum() == sum(len(d.tokens) - 1 for d in heldout)


def test_bytes_are_the_utf8_of_the_text():
    assert bytes(Bytes().encode(["naïve\n"])[0].astype(np.uint8)) == "naïve\n".encode()
