"""One cell of a study by the usual way: a process that trains Mixtral from the beginning, evaluates it and ends.

`python -m benchmarks.mixtral_cell CELL.npz` needs torch and transformers, and no JAX. CELL.npz is written by
`benchmarks.race`: the batches of every step and their rates, the held-out windows, and, as JSON, shape and settings.
Prints one line of JSON: the held-out loss in nats per token.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from transformers.utils import logging

from benchmarks.mixtral import build, stepper
from benchmarks.peer import Settings, Shape

THREADS = 1


def held_out_loss(model: torch.nn.Module, tokens: torch.Tensor, weight: torch.Tensor, batch: int) -> float:
    """Mean cross-entropy over the weighted targets."""
    total = torch.zeros((), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(tokens), batch):
            window, counted = tokens[start : start + batch], weight[start : start + batch]
            logits = model(input_ids=window[:, :-1]).logits
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten(), reduction="none")
            total += (losses * counted.flatten()).sum()
    return float(total / weight.sum())


def main() -> None:
    torch.set_num_threads(THREADS)
    logging.set_verbosity_error()
    with np.load(sys.argv[1]) as cell:
        shape, settings = Shape(**json.loads(str(cell["shape"]))), Settings(**json.loads(str(cell["settings"])))
        batches = torch.from_numpy(cell["batches"].astype(np.int64))
        windows, weight = torch.from_numpy(cell["windows"].astype(np.int64)), torch.from_numpy(cell["weight"])
        rates = cell["rates"].tolist()
        torch.manual_seed(int(cell["seed"]))
    model = build(shape, settings)
    step = stepper(model, settings)
    for batch, rate in zip(batches, rates, strict=True):
        step(batch, rate)
    print(json.dumps({"loss": held_out_loss(model.eval(), windows, weight, shape.sequences)}))


if __name__ == "__main__":
    main()
