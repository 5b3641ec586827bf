"""The registry of tasks. A new task is one module here and one line in `TASKS`.

Other distributions register theirs with entry points of the group `scaling.tasks`.
"""

from __future__ import annotations

from scaling.distribution import Registry
from scaling.tasks.task import Task

LANGUAGE_MODEL = "lm"

TASKS = Registry("scaling.tasks", Task, {}, {
    LANGUAGE_MODEL: "scaling.tasks.language_model:TASK",
    "mixture-regression": "scaling.tasks.mixture_regression:TASK",
    "mixture-classification": "scaling.tasks.mixture_classification:TASK",
    "shared-experts": "scaling.tasks.shared_experts:TASK",
    "value-rl": "scaling.tasks.value_rl:TASK",
    "policy-rl": "scaling.tasks.policy_rl:TASK",
    "text-world": "scaling.tasks.text_world:TASK",
})  # fmt: skip
