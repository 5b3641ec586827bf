"""Tokenizer files of one's own: their symbols, the separator, bytes of the text, and what the corpus hash covers."""

import io
import json

import numpy as np
import pytest
import tokenizers
from pydantic import ValidationError

from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.data import prepare
from scaling.data.batches import eval_windows
from scaling.data.tokenizer import CLASSES, classes
from scaling.errors import InputError

TEXTS = ["The naïve expert\troutes 17 tokens to <eos> and 日本語.", "  Two  spaces, then\nlines\n"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))


def text_file(folder):
    path = folder / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{n} {TEXTS[n % 2]}"}) for n in range(260)))
    return path


def word_pieces(path, **model):
    """A tokenizer.json that lowers case, has an unknown symbol, cuts texts and adds symbols before them: all that may
    go wrong."""
    words = ["[UNK]", "the", "expert", "routes", "tokens", "to", "and", "two", "spaces", "lines", "##s", ",", "."]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: n for n, word in enumerate(words)}, unk_token="[UNK]", **model)
    )
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["<bos>", "<eos>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    tokenizer.enable_truncation(4)
    tokenizer.save(str(path))
    return path


def pieces(path):
    sentencepiece = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 50), model_writer=made, vocab_size=60, minloglevel=2, hard_vocab_limit=False
    )
    path.write_bytes(made.getvalue())
    return path


def data(text, tokenizer, **changes):
    return DataConfig(corpus="files", paths=[str(text)], tokenizer=str(tokenizer), heldout_docs=100, **changes)


@pytest.mark.parametrize(
    ("make", "name", "end"), [(word_pieces, "tokenizer.json", "<eos>"), (pieces, "x.model", "</s>")]
)
@pytest.mark.parametrize("named", [False, True])
def test_a_file_tokenises_whole_texts_and_counts_their_bytes(tmp_path, make, name, end, named):
    """Also where a tokeniser drops, joins or replaces characters, and whatever names stand in the text."""
    file = make(tmp_path / name)
    config = data(text_file(tmp_path), file, separator=end if named else None)
    corpus = prepare(config)
    symbols = len(json.loads(file.read_text())["model"]["vocab"]) + 2 if name.endswith("json") else None
    assert corpus.vocab_size == config.vocab_size
    if symbols:
        assert corpus.vocab_size == symbols + (not named)
    assert corpus.separator < corpus.vocab_size
    assert (corpus.separator == corpus.vocab_size - 1) or named
    stream = np.asarray(corpus.tokens())
    assert np.sum(stream == corpus.separator) == corpus.train_documents == 160
    assert stream.max() < corpus.vocab_size
    texts = {f"{n}": f"{n} {TEXTS[n % 2]}" for n in range(260)}
    for document in corpus.heldout():
        number = int(document.name.rpartition(":")[2]) - 1
        assert document.n_bytes.sum() == len(texts[str(number)].encode())
        assert document.n_bytes[0] == 0
        assert document.tokens[0] == corpus.separator
        assert (document.tokens[1:] != corpus.separator).all()
        assert len(document.tokens) > 6  # nothing was cut
    windows = eval_windows(corpus.heldout(), 64, 16)
    assert windows.n_bytes.sum() == sum(document.n_bytes.sum() for document in corpus.heldout())
    kinds = classes(config, corpus.folder)
    assert len(kinds) == corpus.vocab_size
    assert kinds[corpus.separator] == CLASSES.index("separator")
    assert CLASSES.index("lower case") in kinds


def test_the_hash_and_the_run_follow_the_content_of_the_file_and_not_its_path(tmp_path):
    text = text_file(tmp_path)
    (tmp_path / "other").mkdir()
    first, same = (word_pieces(tmp_path / place / "tokenizer.json") for place in (".", "other"))
    changed = word_pieces(tmp_path / "changed.json", max_input_chars_per_word=3)
    hashes = [prepare(data(text, file)).hash for file in (first, same, changed)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert prepare(data(text, first, separator="<eos>")).hash not in hashes
    cells = [RunConfig(data=data(text, file)) for file in (first, same)]
    assert cells[0].run_id("x") == cells[1].run_id("x")
    assert str(tmp_path) not in json.dumps(cells[0].identity("x") | {"data": {**cells[0].data.identity()}})
    first.write_bytes(changed.read_bytes())  # the same path with other content is another corpus
    assert prepare(data(text, first)).hash == hashes[2]


def test_vocabularies_above_65535_are_kept_in_four_bytes(tmp_path):
    words = {f"w{n}": n for n in range(70_000)} | {"[UNK]": 70_000}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "large.json"))
    rows = [json.dumps({"text": f"w{n} w{69_999 - n} w3"}) for n in range(260)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    corpus = prepare(data(tmp_path / "text.jsonl", tmp_path / "large.json"))
    stream = np.asarray(corpus.tokens())
    assert (corpus.vocab_size, corpus.separator, corpus.dtype) == (70_002, 70_001, "uint32")
    assert stream.max() == 70_001
    assert 65_536 < np.sort(stream[stream < 70_000])[-1] <= 69_999


def test_wrong_files_are_refused_by_name(tmp_path):
    with pytest.raises(ValidationError, match="tokenizer"):
        DataConfig(tokenizer="gpt2")
    with pytest.raises(ValidationError, match="separator"):
        DataConfig(separator="<eos>")
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    (tmp_path / "bad.model").write_bytes(b"not a model")
    missing = [("nothing.json", "nothing"), ("vocab.json", "vocab"), ("bad.model", "bad")]
    for name, word in missing:
        with pytest.raises(InputError, match=word):
            _ = DataConfig(tokenizer=str(tmp_path / name)).vocab_size
    file = word_pieces(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="<eos>"):  # which it has, is named
        _ = DataConfig(tokenizer=str(file), separator="<|endoftext|>").vocab_size


def test_bpe_is_trained_on_a_sample_that_the_text_alone_decides(tmp_path):
    """About `bpe_sample` bytes; another order of the documents gives the same symbols, another sample another hash."""
    rows = [json.dumps({"text": f"{n} " + f"word{n % 97} expert{n % 89} " * 150}) for n in range(600)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.jsonl").write_text("\n".join(rows[::-1]))
    config = {"corpus": "files", "tokenizer": "bpe", "bpe_vocab": 400, "heldout_docs": 100}
    one, whole = (
        prepare(DataConfig(paths=[str(tmp_path / "a.jsonl")], bpe_sample=size, **config)) for size in (10**6, 10**8)
    )
    other = prepare(DataConfig(paths=[str(tmp_path / "b.jsonl")], bpe_sample=10**6, **config))
    models = [json.loads((corpus.folder / "tokenizer.json").read_text())["model"] for corpus in (one, other)]
    assert models[0] == models[1]
    assert one.hash != whole.hash
    assert one.vocab_size == other.vocab_size == 401
