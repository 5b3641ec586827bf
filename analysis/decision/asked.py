"""What an answer was asked, by the names it was asked with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.decision.question import Question


@dataclass(frozen=True)
class Asked:
    """The fits that a question was put to, and the names of what it keeps as numbers alone.

    `fits` and `rivals` are files or `published:NAME`, in the order in which they were given. `names` holds, by field of
    `scaling recommend`, the file or name behind a value: `latency`, `throughput`, `devices`, `speed`,
    `training_speed`, `family`, `like`, `weigh_by`, `weights`, `experts`, `kv`. `question` is the one asked about all
    shapes of experts, None where it is that of the recommendation.
    """

    fits: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    question: Question | None = None
