"""Text to token blocks: corpora on this computer or in files, tokenisers, the held-out split, deterministic batches."""

from scaling.data.corpus import Corpus, HeldOut, prepare

__all__ = ["Corpus", "HeldOut", "prepare"]
