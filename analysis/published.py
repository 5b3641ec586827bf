"""Published fits by name: constants as printed, each with its source; usable wherever a fit is."""

from __future__ import annotations

from math import exp

from analysis.families import JOINT_MOE_2025
from analysis.fit import Fit
from scaling.errors import InputError

_HOFFMANN_DOMAIN = {"n_active": (7e7, 1.6e10), "tokens": (5e9, 5e11)}

PUBLISHED: dict[str, Fit] = {
    "chinchilla-rounded": Fit(
        law="hoffmann",
        status="published",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
        source="Hoffmann et al. 2022, arXiv 2203.15556, eq. 10, rounded as printed",
        warnings=(
            "two-digit exponents: tokens per parameter at 5.76e23 FLOPs come out as 93 where unrounded ones give 59",
        ),
    ),
    "chinchilla-tex": Fit(
        law="hoffmann",
        status="published",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": exp(0.5267228), "A": exp(6.0073404), "alpha": 0.33917084, "B": exp(6.0179186), "beta": 0.2849083},
        source="Hoffmann et al. 2022, unrounded values of the paper's TeX source as quoted by Besiroglu et al. 2024, "
        "arXiv 2404.10102",
    ),
    "chinchilla-epoch": Fit(
        law="hoffmann",
        status="published",
        domain=_HOFFMANN_DOMAIN,
        experts=(1,),
        params={"E": 1.81686, "A": 482.00572, "alpha": 0.34781303, "B": 2085.43420, "beta": 0.36585412},
        source="Besiroglu et al. 2024 (Epoch AI), arXiv 2404.10102, point estimate on 240 digitised runs",
        notes=("in effect a least-absolute-deviations fit: its Huber scale was free and collapsed",),
    ),
    "joint-moe-2025": Fit(
        law="joint-moe",
        status="published",
        experts=(1, 2, 4, 8, 16, 32),
        domain={"n_active": (7.9e7, 2.7e9), "tokens": (5e8, 8e10), "n_experts": (1.0, 32.0)},
        params={
            "a": 35.91,
            "alpha": -0.1889,
            "delta": -0.2285,
            "gamma": 0.0098,
            "b": 35.98,
            "beta": -0.1775,
            "omega": 0.5529,
            "zeta": -0.0259,
            "c": 1.3637,
            "E_start": 2.0732,
            "E_max": 290.4521,
        },
        family=JOINT_MOE_2025,
        source="Ludziejewski et al. 2025, arXiv 2502.05172, table of the joint MoE law",
    ),
}


def published(name: str) -> Fit:
    """The published fit of that name. Raises InputError listing the names there are."""
    if name not in PUBLISHED:
        raise InputError(f"no published fit is called {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
