"""The benchmark of BPE makes the corpus that it says, at a small size."""

import json

import numpy as np
import pytest

from benchmarks import tokenise
from scaling.config.data import DataConfig
from scaling.data import prepare


@pytest.mark.slow
def test_a_small_text_is_made_and_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.jsonl"
    distinct = tokenise.write_text(path, 6_000_000)
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    assert sum(len(text.encode()) for text in texts) >= 6_000_000
    assert len(set(texts)) > 260
    assert distinct >= 6_000_000  # more Python than that is installed wherever this runs
    cost = tokenise.made(path, 300)
    assert cost["cpu_s"] > 0
    corpus = prepare(DataConfig(corpus="files", paths=[str(path)], tokenizer="bpe", bpe_vocab=300))
    assert cost["tokens"] == corpus.train_tokens == len(np.asarray(corpus.tokens()))
