"""A process that tokenises: `python -m scaling.data.encoder_process FILE VOCAB_SIZE`, chunks of text on stdin."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from scaling.data.encoders import receive, send
from scaling.data.tokenizer import open_file


def main() -> None:
    """Answer every chunk of texts with its symbols until stdin ends."""
    file, vocab_size = Path(sys.argv[1]), int(sys.argv[2])
    tokenizer = open_file(file, vocab_size)
    while True:
        try:
            lengths, raw = receive(sys.stdin.buffer)
        except EOFError:
            return
        ends = np.cumsum(lengths).tolist()
        starts = [0, *ends[:-1]]
        symbols = tokenizer.encode([raw[a:b].decode() for a, b in zip(starts, ends, strict=True)])
        content = b"".join(row.tobytes() for row in symbols)
        send(sys.stdout.buffer, np.array([len(row) for row in symbols]), content)


if __name__ == "__main__":
    main()
