"""The language model as a task: its cells are `scaling.config.run.RunConfig`, its training is `scaling.training`."""

from __future__ import annotations

from scaling.config.counts import train_flops
from scaling.config.training_memory import training_memory_bytes
from scaling.tasks.task import Budget, Metric, Task

TASK = Task(
    name="lm",
    title="language modelling",
    settings=None,
    metrics=(
        Metric("loss_val", "nats/token", "held-out loss after the cooldown"),
        Metric("bits_per_byte", "bits/byte", "held-out loss per byte of text"),
    ),
    budget=Budget("tokens", "tokens", "D, training tokens"),
    train="scaling.training.language_model:train_cells",
    flops=train_flops,
    flops_are="counted",
    measure="scaling.training.inference_bench:measure",
    tables=("evals", "curves"),
    memory_bytes=training_memory_bytes,
)
