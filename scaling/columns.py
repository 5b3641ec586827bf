"""Names of the columns that laws and tables share."""

from __future__ import annotations

COMPUTE = "train_flops"
TOKENS, EXPERTS, LOSS = "tokens", "n_experts", "loss_val"
