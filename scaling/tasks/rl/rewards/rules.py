"""The rule of a reward by its name."""

from __future__ import annotations

from scaling.tasks.rl.rewards.adaptive import Adaptive
from scaling.tasks.rl.rewards.bonus import Bonus
from scaling.tasks.rl.rewards.potential import Potential
from scaling.tasks.rl.rewards.programmed import Programmed
from scaling.tasks.rl.rewards.rule import Rule


def rule_of(reward: str, game: str, text: str, discount: float) -> Rule | None:
    """The rule of one of `scaling.tasks.rl.rewards.library.REWARDS`; None for `own`, which has no help.

    text: as `scaling.tasks.rl.rewards.library.resolved_program` gives it. Raises KeyError for another name.
    """
    if reward == "own":
        return None
    of_text = {"potential": Potential, "program": Programmed}
    if reward in of_text:
        return of_text[reward](game, discount, text)
    return {"adaptive": Adaptive, "bonus": Bonus}[reward](game, discount)
