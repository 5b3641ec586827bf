"""Text to token blocks: corpora found, streamed or drawn; tokenisers, the held-out split, packing, deterministic
batches."""

from scaling.data.corpus import Corpus, HeldOutText, prepare
from scaling.data.markov import known_entropy

__all__ = ["Corpus", "HeldOutText", "known_entropy", "prepare"]
