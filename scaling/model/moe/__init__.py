"""The mixture-of-experts layer: a router, a dispatch and a form of experts.

Axes: T tokens of the whole batch, D width, F hidden units of an expert, E experts, k experts per token.
"""

from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Routing, Tokens, TrainingStep

__all__ = ["MoE", "Routing", "Tokens", "TrainingStep"]
