"""A mixture-of-experts layer is three choices: a router, a dispatch and a form of experts.

Axes used below: T tokens of the batch in one row, D width, F hidden units of an expert, E experts, k experts per token.
"""

from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Routing, Tokens, TrainingStep

__all__ = ["MoE", "Routing", "Tokens", "TrainingStep"]
