"""From text to token blocks: corpora, tokenisers, held-out split, packing and deterministic batches."""

from scaling.data.corpus import Corpus, HeldOutText, prepare, prepared
from scaling.data.markov import known_entropy

__all__ = ["Corpus", "HeldOutText", "known_entropy", "prepare", "prepared"]
