"""The toy model of the laws sheet, section 4, and a device as in section 4.2."""

from scaling.serving.device import Device
from scaling.serving.service import ModelSizes, Service
from scaling.serving.step_time import Efficiency

# d 2048, 24 layers, E 64, k 8, expert 3 d 1024, attention 4 d^2, router d E, vocabulary 50304 with tied head.
D, LAYERS, E, K = 2048, 24, 64, 8
EXPERT, SHARED, ROUTER = 3 * D * 1024, LAYERS * 4 * D * D + 50304 * D, LAYERS * D * E
TOY = ModelSizes(
    n_active=SHARED + LAYERS * K * EXPERT, n_total=SHARED + LAYERS * E * EXPERT, kv_elements_per_token=2 * LAYERS * D,
    n_layers=LAYERS, d_model=D, n_experts=E, top_k=K, n_router=ROUTER,
)  # fmt: skip
SHEET = Device("sheet", "as in section 4.2", 9.89e14, 3.35e12, 80e9, 2.0, "bfloat16", "laws sheet", "laws sheet")
IDEAL = Service(prompt=512, generated=256, utilisation=1, overlap=True, efficiency=Efficiency(1, 1))


def dense(n: float) -> ModelSizes:
    """A dense model of n parameters with the toy's depth and width."""
    return ModelSizes(n_active=n, n_total=n, kv_elements_per_token=2 * LAYERS * D, n_layers=LAYERS, d_model=D)
