"""Text to token blocks: corpora read, streamed or drawn; tokenisers, held-out split, packing, deterministic batches."""

from scaling.data.corpus import Corpus, HeldOutText, prepare
from scaling.data.markov import known_entropy

__all__ = ["Corpus", "HeldOutText", "known_entropy", "prepare"]
