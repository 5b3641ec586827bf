"""docs/text.md and docs/models.md: their grids are read, their texts prepared, their Python runs."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from scaling.config.training_memory import training_memory_bytes
from scaling.data import prepare
from sweeps.grid import load_grid

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the texts, the tokenizer file and the tokens that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "texts").mkdir()
    texts = [f"document {n} of expert{n % 7} and router{n % 11}, in {n % 13} words" for n in range(260)]
    (tmp_path / "texts" / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = {word: n for n, word in enumerate(sorted({word for text in texts for word in text.split()}))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words | {"[UNK]": len(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save("tokenizer.json")
    return tmp_path


def test_the_texts_of_the_page_are_prepared(place):
    """The folder that Python copies is then described by the page's own tokens.json, and read as tokens."""
    (python,) = blocks("text.md", "python")
    exec(python, {})
    assert json.loads((place / "tokens" / "tokens.json").read_text())["vocab_size"] == 301
    (described,) = blocks("text.md", "json")
    rng = np.random.default_rng(0)
    for name in ("train_0", "train_1", "val"):
        rows = [[50256, *rng.integers(0, 50256, 20).tolist()] for _ in range(150)]
        np.array(rows, np.uint16).tofile(place / "tokens" / f"{name}.bin")
    (place / "tokens" / "tokens.json").write_text(described)
    grids = blocks("text.md", "yaml")
    assert len(grids) == 2
    for text in grids:
        path = place / "grid.yaml"
        path.write_text(f"study: page\n{text}grid: {{d_model: 32, n_experts: [1, 4], tokens: 64Ki}}\n")
        cells = load_grid(path).cells
        corpus = prepare(cells[0].data.model_copy(update={"heldout_docs": 100}))
        assert corpus.vocab_size == cells[0].data.vocab_size
        assert corpus.heldout_documents == 100
    assert corpus.vocab_size == 50_257


def test_the_models_of_the_page_are_planned(place):
    counts = []
    for text in blocks("models.md", "yaml"):
        path = place / "grid.yaml"
        sized = text.replace("d_model: 32", "d_model: 32, tokens: 256Ki")
        path.write_text(f"study: page\n{sized}train: {{batch_tokens: 2048}}\n")
        cells = load_grid(path).cells
        assert all(training_memory_bytes(cell) > 0 for cell in cells)
        counts.append(len(cells))
    assert counts == [10, 8]
