"""The registry of tasks. A new task is one module here and one line in `TASKS`.

Other distributions register theirs with entry points of the group `scaling.tasks`.
"""

from __future__ import annotations

from scaling.distribution import Registry
from scaling.tasks.task import Task

LANGUAGE_MODEL = "lm"

TASKS = Registry("scaling.tasks", Task, {}, {
    LANGUAGE_MODEL: "scaling.tasks.language_model:TASK",
})  # fmt: skip
